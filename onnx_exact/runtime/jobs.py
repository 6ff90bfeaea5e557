"""Tasks in several processes, by joblib and whatever backend it is set to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any


def in_order(
    jobs: int, tasks: Iterable[tuple[Callable[..., Any], tuple[Any, ...]]]
) -> Iterator[Any]:
    """What functions give for their arguments, in the order of the tasks.

    A task is taken from the iterable only when it can begin, so that answers to those before it may
    have made it needless. A backend that gives no answer before it has all of them (that of Dask)
    gets as many tasks at a time as it has workers.

    Args:
        jobs: how many processes.
        tasks: functions and their arguments, which are sent to the processes.
    """
    from joblib import Parallel, delayed
    from joblib.parallel import get_active_backend

    put = (delayed(function)(*arguments) for function, arguments in tasks)
    if get_active_backend()[0].supports_return_generator:
        yield from Parallel(jobs, return_as="generator", pre_dispatch="n_jobs", batch_size=1)(put)
        return
    with Parallel(jobs, batch_size=1) as pool:
        while wave := list(islice(put, jobs)):
            yield from pool(wave)
