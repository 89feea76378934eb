"""What is kept: copies where they are needed, in other types where they are asked for, lines where they are drawn."""

from __future__ import annotations

from threading import Thread

import pytest
import torch

from ecad.runtime.kept_outputs import CacheStats, Kept, Line, Storage, Tally, size_if_kept, size_of


@pytest.fixture
def stats():
    return CacheStats()


def test_what_is_kept_is_given_until_it_is_released(stats):
    kept, output = Kept(Tally(stats)), torch.ones(2)
    assert kept.get() is None
    kept.keep(output)
    assert kept.get() is output
    assert (stats.cached_bytes, stats.peak_cached_bytes) == (8, 8)
    kept.release()
    assert kept.get() is None
    assert (stats.cached_bytes, stats.peak_cached_bytes) == (0, 8)


def test_an_output_that_was_changed_in_place_is_gone(stats):
    kept, output = Kept(Tally(stats)), torch.ones(2)
    kept.keep((output, "text"))
    output[:1] += 1
    assert kept.get() is None


@pytest.mark.parametrize("storage", [None, Storage(dtype=torch.bfloat16)])
def test_of_what_the_model_changes_copies_are_kept_and_given(stats, storage):
    kept, output = Kept(Tally(stats), storage), torch.ones(2)
    kept.keep(output)
    kept.own()
    output += 1
    for _ in range(2):
        given = kept.get()
        assert given.tolist() == [1, 1]
        given += 1
    kept.keep(output)
    output += 1
    assert kept.get().tolist() == [2, 2]


def test_a_line_is_drawn_through_numbers_and_nothing_else(stats):
    kept = Kept(Tally(stats))
    kept.keep((torch.tensor([1.0, 2.0]), None, "text", torch.tensor([3])), Line(remembered=True))
    assert stats.cached_bytes == 16
    kept.keep((torch.tensor([3.0, 2.0]), None, "text", torch.tensor([7])), Line(gap=2))
    line, *others, whole = kept.get()
    assert (line.tolist(), others, whole.tolist()) == ([4.0, 2.0], [None, "text"], [7])
    assert (stats.cached_bytes, stats.peak_cached_bytes) == (16, 16)
    kept.free()
    assert stats.cached_bytes == 0


def test_a_line_through_complex_numbers(stats):
    kept = Kept(Tally(stats))
    kept.keep(torch.tensor([1.0 + 1.0j]), Line(remembered=True))
    kept.keep(torch.tensor([2.0 + 3.0j]), Line(gap=1))
    assert kept.get().tolist() == [3.0 + 5.0j]


OUTPUT = {"a": [torch.ones(2, 3), torch.tensor([True])], "b": (torch.tensor([5]), None, torch.ones(2).half())}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_an_output_comes_back_as_it_was_returned(stats, dtype):
    kept = Kept(Tally(stats), Storage("cpu", dtype))
    kept.keep(OUTPUT)
    assert stats.cached_bytes == size_if_kept(OUTPUT, Storage(dtype=dtype)) == 8 * dtype.itemsize + 9
    given = kept.get()
    assert [type(part) for part in (given, given["a"], given["b"])] == [dict, list, tuple]
    for before, after in zip((*OUTPUT["a"], *OUTPUT["b"]), (*given["a"], *given["b"]), strict=True):
        assert before is after is None or (before.dtype == after.dtype and torch.equal(before, after))


def test_outputs_lie_on_the_device_they_are_kept_on(stats):
    kept = Kept(Tally(stats), Storage("meta", torch.float16))
    kept.keep((torch.ones(2, 3), torch.ones(3)))
    assert {(part.device.type, part.dtype) for part in kept._output} == {("meta", torch.float16)}
    assert kept.size == 2 * 9


def test_size_of_what_a_dictionary_holds():
    assert size_of({"a": torch.ones(2), "b": [torch.ones(3)]}) == 20


def test_calls_are_counted_from_any_thread(stats):
    tally = Tally(stats)
    threads = [Thread(target=lambda: [tally.called(1, 2, 3) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (stats.computed, stats.reused, stats.skipped) == (8000, 16000, 24000)
