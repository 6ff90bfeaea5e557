"""Other tools and solvers, as functions on files."""
