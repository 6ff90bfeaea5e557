"""The ways to decide and to reduce, apart from the code, so that help is quick."""

# auto: whatever decides a unit soundly at the least cost. bounds: the same without a solver.
# isa, per-unit: the published algorithms (Serra et al. 2021, 2020), to compare with.
METHODS = ("auto", "bounds", "isa", "per-unit")
PUBLISHED = METHODS[2:]

DEFAULT_LP_SOLVER = "HIGHS"

# all: whatever is exact and saves connections. published: what the papers have (Serra et al. 2020,
# 2021), to compare with.
REDUCTIONS = ("all", "published")

# What the result is for. deploy: the fewest connections in a plain chain, which any tool reads.
# verify: units of the file, and inputs passed through, with biases by which plain intervals show
# every stable unit. size: the fewest connections, around the ReLU too where that saves any.
DEPLOY, VERIFY, SIZE = GOALS = ("deploy", "verify", "size")

# Where the linear part of a layer goes: through the ReLU, in a plain chain, or around it.
CHAIN_FORM, SPLIT_FORM = "chain", "split"

# In units of one rounding of the terms that the model itself adds up.
DEFAULT_MAX_DEVIATION = 1.0
