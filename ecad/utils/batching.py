"""Batches that the memory has no room for: halved until they fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ecad.errors import EcadError

T = TypeVar("T")


@dataclass
class Halving:
    """Does work in batches, and in smaller ones from the first time on that memory runs out.

    Args:
        what: is in a batch, for messages.
        most: so many at once, as far as is known; None for any number.

    >>> halving = Halving("numbers", most=2)
    >>> halving.run(lambda places: [place * place for place in places], 5)
    [[0, 1], [4, 9], [16]]
    """

    what: str
    most: int | None = None

    def run(self, work: Callable[[range], T], count: int) -> list[T]:
        """Do the work of `count` places: in one batch, or in as many as it takes.

        Raises:
            EcadError: there is no room for a single one.
        """
        done: list[T] = []
        start = 0
        while start < count:
            places = range(start, min(start + (self.most or count), count))
            try:
                done.append(work(places))
            except (RuntimeError, MemoryError) as error:
                if not _ran_out_of_memory(error):
                    raise
                reason = " ".join(str(error).split())[:100]
            else:
                start = places.stop
                continue
            # Out of the except clause: its traceback would keep all that the attempt has allocated.
            if len(places) == 1:
                raise EcadError(
                    f"{self.what}: not enough memory for one at a time ({reason}); stop other programs, or use another "
                    "device or a smaller model"
                )
            self.most = len(places) // 2
            warnings.warn(
                f"{self.what}: not enough memory for {len(places)} at once: going on with {self.most}; a smaller batch "
                "size spares the attempt",
                RuntimeWarning,
                stacklevel=2,
            )
        return done


def _ran_out_of_memory(error: BaseException) -> bool:
    """PyTorch has a class for this on CUDA only; elsewhere it says so in words."""
    words = ("out of memory", "DefaultCPUAllocator", "not enough memory")
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(word in str(error) for word in words)
    )
