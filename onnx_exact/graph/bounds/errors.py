"""How far evaluations of a transcendental function may be off: the one table of it.

docs/guarantees.md repeats the table, and a test holds the two together.
"""

from __future__ import annotations

# In units in the last place, of the result or of 1, whichever is larger: runtimes evaluate these by
# rational approximations whose error does not shrink with the result, and that may leave the range
# of the function by as much.
_FUNCTIONS = (
    *("Atan", "Celu", "Cos", "Elu", "Erf", "Exp", "GRU", "Gelu", "LSTM", "Log", "LogSoftmax"),
    *("Mish", "Pow", "RNN", "Selu", "Sigmoid", "Sin", "Softmax", "Softplus", "Softsign", "Tanh"),
)
UNITS = dict.fromkeys(_FUNCTIONS, 8)
