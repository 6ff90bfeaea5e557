"""Has the memory of arrays kept from one to the next.

Matrices come and go: if their memory went back to the system every time, up to half of the time of
deciding would be spent on getting it again. glibc keeps that of arrays up to the size of the
largest one that was ever released, and up to 32 MiB.
"""

from __future__ import annotations

import numpy as np

# The largest array whose release makes glibc keep the memory of arrays up to its size.
KEPT_BYTES = 2**25 - 2**16


def keep_memory() -> None:
    """Releases one large array, which is never written to and takes no memory."""
    np.empty(KEPT_BYTES, dtype=np.uint8)
