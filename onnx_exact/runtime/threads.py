"""One thread for numpy's matrix products: ours are small, and threads would wait for one another.

On a busy machine 60 times slower was seen with two. Results do not depend on the number of cores.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController


def one_thread() -> AbstractContextManager[object]:
    """A context in which numpy takes one thread; libraries that are loaded later are not meant."""
    context: AbstractContextManager[object] = _libraries().limit(limits=1)
    return context


@cache
def _libraries() -> ThreadpoolController:
    """What is loaded: looking for it takes milliseconds, as long as deciding a small network."""
    return ThreadpoolController()
