"""Sound bounds on what a ReLU network computes: intervals, CROWN, optimised slopes."""
