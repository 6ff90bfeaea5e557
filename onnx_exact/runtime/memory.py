"""Has the memory of arrays kept from one to the next, and given back where a stage is over.

Matrices come and go: if their memory went back to the system every time, up to half of the time of
deciding would be spent on getting it again. glibc keeps that of arrays up to the size of the
largest one that was ever released, and up to 32 MiB. What lies unused between others then counts
as the program's, a third of all that a network of 10,000 units takes, until it is given back.
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np

# The largest array whose release makes glibc keep the memory of arrays up to its size.
KEPT_BYTES = 2**25 - 2**16


def keep_memory() -> None:
    """Releases one large array, which is never written to and takes no memory."""
    np.empty(KEPT_BYTES, dtype=np.uint8)


def release_memory() -> None:
    """Gives what nothing uses back to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
