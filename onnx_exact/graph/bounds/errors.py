"""How far evaluations of a transcendental function may be off: the one table of it.

docs/guarantees.md repeats the table, and a test holds the two together.
"""

from __future__ import annotations

# In units in the last place, of the result or of 1, whichever is larger: runtimes evaluate these by
# rational approximations whose error does not shrink with the result, and that may leave the range
# of the function by as much.
UNITS = dict.fromkeys(("Cos", "Elu", "Exp", "Sigmoid", "Sin", "Softmax", "Tanh"), 8)
