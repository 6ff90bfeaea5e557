"""Random graphs, damaged files and how results are judged, for `fuzz`."""
