"""Batches that shrink when memory runs out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ecad.errors import EcadError

T = TypeVar("T")

# PyTorch has an exception class for this on CUDA only; on other devices the message tells.
_OUT_OF_MEMORY_MESSAGES = ("out of memory", "DefaultCPUAllocator", "not enough memory")


@dataclass
class AdaptiveBatches:
    """Runs work in batches and halves the batch size each time memory runs out. The size found is kept for later runs.

    Args:
        items: what a batch consists of, for messages.
        limit: largest batch size; None for no limit.

    >>> batches = AdaptiveBatches("numbers", limit=2)
    >>> batches.run(lambda indices: [i * i for i in indices], 5)
    [[0, 1], [4, 9], [16]]
    """

    items: str
    limit: int | None = None

    def run(self, work: Callable[[range], T], count: int) -> list[T]:
        """Process `count` items, in one batch if memory allows.

        Args:
            work: processes the items at the given indices.
            count: number of items.

        Returns:
            the result of each batch, in order.

        Raises:
            EcadError: memory does not suffice for a single item.
        """
        results: list[T] = []
        start = 0
        while start < count:
            batch = range(start, min(start + (self.limit or count), count))
            try:
                results.append(work(batch))
            except (RuntimeError, MemoryError) as error:
                if not _ran_out_of_memory(error):
                    raise
                reason = " ".join(str(error).split())[:100]
            else:
                start = batch.stop
                continue
            # Outside the except clause: its traceback would keep everything alive that the attempt allocated.
            if len(batch) == 1:
                raise EcadError(
                    f"{self.items}: not enough memory for a batch size of 1 ({reason}); close other programs, or use "
                    "another device or a smaller model"
                )
            self.limit = len(batch) // 2
            warnings.warn(
                f"{self.items}: not enough memory for a batch size of {len(batch)}: continuing with {self.limit}; set "
                "a smaller batch size to avoid the failed attempt",
                RuntimeWarning,
                stacklevel=2,
            )
        return results


def _ran_out_of_memory(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(message in str(error) for message in _OUT_OF_MEMORY_MESSAGES)
    )
