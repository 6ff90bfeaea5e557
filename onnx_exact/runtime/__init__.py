"""What a run needs of the machine: time, threads, memory, processes, streams, output files."""
