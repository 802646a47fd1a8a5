"""Work in threads, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    ahead: int,
    prepare: Callable[[], None] | None = None,
) -> Generator[Result, None, None]:
    """``map`` in threads that run no further ahead of the consumer than told.

    Args:
        function: Called once for each item, in any of the threads.
        items: Drawn in the consumer's thread, as they are needed.
        threads: Number of threads.
        ahead: Results begun or held beyond the one that the consumer asks for.
        prepare: Called first in each thread.

    Yields:
        The results in the order of the items. An error of ``function`` is raised at its item's turn.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, initializer=prepare) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
