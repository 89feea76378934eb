from __future__ import annotations

import warnings

import pytest
import torch

from ecad.errors import EcadError
from ecad.utils.batching import AdaptiveBatches


def work(room: int) -> tuple[list[int], object]:
    """Work that has room for so many places; and the sizes of the batches that were tried."""
    tried: list[int] = []

    def run(places: range) -> list[int]:
        tried.append(len(places))
        if len(places) > room:
            torch.empty(1 << 60, dtype=torch.uint8)
        return list(places)

    return tried, run


def test_a_batch_is_halved_until_it_fits_and_the_next_one_begins_so() -> None:
    batches, (tried, run) = AdaptiveBatches("things"), work(room=3)
    with pytest.warns(RuntimeWarning) as told:
        assert batches.run(run, 10) == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]  # type: ignore[arg-type]
    assert [str(one.message).split(";")[0] for one in told] == [
        "things: not enough memory for a batch size of 10: continuing with 5",
        "things: not enough memory for a batch size of 5: continuing with 2",
    ]
    assert batches.run(run, 3) == [[0, 1], [2]]  # type: ignore[arg-type]
    assert tried == [10, 5, 2, 2, 2, 2, 2, 2, 1]


def test_what_fits_is_done_in_one_batch_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert AdaptiveBatches("things").run(list, 10) == [list(range(10))]
        assert AdaptiveBatches("things").run(list, 0) == []


def test_one_that_has_no_room_is_refused_on_one_line() -> None:
    with pytest.raises(EcadError, match=r"things: not enough memory for a batch size of 1 .*allocate") as caught:
        AdaptiveBatches("things").run(work(room=0)[1], 1)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("Allocation on device"), MemoryError()])
def test_other_ways_to_say_so(error: Exception) -> None:
    def run(places: range) -> int:
        if len(places) > 1:
            raise error
        return places[0]

    with pytest.warns(RuntimeWarning, match="continuing with 1"):
        assert AdaptiveBatches("things").run(run, 2) == [0, 1]


def test_another_error_is_none_of_its_business() -> None:
    def run(places: range) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        AdaptiveBatches("things").run(run, 4)
