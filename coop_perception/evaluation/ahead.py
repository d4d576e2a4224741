"""Work done before it is asked for, in a thread of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_END = object()


def ahead(items: Generator[T, None, None], depth: int) -> Generator[T, None, None]:
    """The items of a generator, which runs in another thread up to `depth` items ahead, and is closed there."""
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as executor:
        waiting = deque(executor.submit(next, items, _END) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(executor.submit(next, items, _END))
                yield item  # type: ignore[misc]
        finally:
            for future in waiting:
                future.cancel()
            executor.submit(items.close)
