"""Sequences that are never held in memory as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")


class Lazy(Sequence[T], Generic[T]):
    """A sequence that makes each item on access, so that its length costs no memory.

    Args:
        make: makes the item with an index.
        indices: of the items, in order.

    >>> squares = Lazy(lambda i: i**2, range(5))
    >>> len(squares), squares[-1], list(squares[1::2])
    (5, 16, [1, 9])
    """

    def __init__(self, make: Callable[[int], T], indices: range) -> None:
        self._make, self._indices = make, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[T]:
        return map(self._make, self._indices)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Lazy[T]: ...

    def __getitem__(self, index: int | slice) -> T | Lazy[T]:
        if isinstance(index, slice):
            return Lazy(self._make, self._indices[index])
        return self._make(self._indices[index])
