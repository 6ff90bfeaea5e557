"""Data, networks and how they are written, for `train` and all that measures networks."""
