"""The ways to decide and to reduce, apart from the code, so that help is quick."""

# auto: whatever decides a unit soundly at the least cost. bounds: the same without a solver.
# isa, per-unit: the published algorithms (Serra et al. 2021, 2020), to compare with.
METHODS = ("auto", "bounds", "isa", "per-unit")
PUBLISHED = METHODS[2:]

DEFAULT_LP_SOLVER = "HIGHS"

# all: whatever is exact and saves connections. published: what the papers have (Serra et al. 2020,
# 2021), to compare with.
REDUCTIONS = ("all", "published")

# Where the linear part of a layer goes. chain: through the ReLU, shifted so that it stays active,
# in a plain chain. split: around the ReLU wherever that saves connections. auto: around the ReLU
# where that saves enough to be faster.
CHAIN_FORM, SPLIT_FORM, AUTO_FORM = FORMS = ("chain", "split", "auto")

# In units of one rounding of the terms that the model itself adds up.
DEFAULT_MAX_DEVIATION = 1.0
