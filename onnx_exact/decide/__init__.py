"""Which of bounds, attacks, branch and bound and programs decides which unit."""
