"""The ways to decide units and their defaults, apart from the code, so that help is quick."""

# auto: whatever decides a unit soundly at the least cost. bounds: the same without a solver.
# isa, per-unit: the published algorithms (Serra et al. 2021, 2020), to compare with.
METHODS = ("auto", "bounds", "isa", "per-unit")

DEFAULT_LP_SOLVER = "HIGHS"

# Seconds: a run ends within a coffee break unless the user wants it otherwise.
DEFAULT_TIME_LIMIT = 300.0
