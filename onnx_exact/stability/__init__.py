"""Which ReLU units are stable: sound bounds, witnesses, solvers, verdicts."""
