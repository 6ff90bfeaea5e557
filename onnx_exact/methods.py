"""The names of the ways to decide units, apart from the code that does, so that help is quick."""

METHODS = ("auto", "milp", "bounds")
