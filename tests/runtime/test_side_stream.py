"""Outputs in main memory, moved beside the computation: the same bits, and nothing is used before it is there."""

from __future__ import annotations

import pytest
import torch
from fake_gpu import FakeGpu, FakeStream, Race

import ecad
from ecad.runtime import side_stream
from ecad.runtime.kept_outputs import CacheStats, Kept, Line, Storage, Tally
from ecad.schedules import heuristics


@pytest.fixture
def gpu(monkeypatch):
    fake = FakeGpu()
    fake.install(monkeypatch)
    return fake


def some_kept(**storage):
    return Kept(Tally(CacheStats()), Storage("cpu", **storage))


@pytest.mark.parametrize("forecast", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_images_are_those_of_outputs_that_stay(tiny, gpu, dtype, forecast):
    schedule = tiny.random_schedule().replace(forecast=forecast)
    with ecad.cached(tiny.pipe, schedule, keep_dtype=dtype):
        expected = tiny.run()
    with ecad.cached(tiny.pipe, schedule, keep_device="cpu", keep_dtype=dtype) as run, gpu:
        assert torch.equal(tiny.run(), expected)
        tiny.break_off(at=2)
        assert torch.equal(tiny.run(), expected)
    assert gpu.begun
    assert run.stats.cached_bytes == 0


def test_what_the_next_row_reuses_is_on_its_way_when_a_row_ends(pixart, gpu):
    every_2 = pixart.schedule(heuristics.every_n(tuple(pixart.components), 4, 2).recompute)
    with ecad.cached(pixart.pipe, every_2, keep_device="cpu"), gpu:
        begun = []
        pixart.run(callback=lambda *_: begun.append(len(gpu.begun)))
    sites = len(pixart.components)
    # Row 0 sends all and brings all; row 1 brings nothing more.
    assert begun == [2 * sites, 2 * sites, 4 * sites, 4 * sites]


@torch.no_grad()
def test_an_output_that_is_changed_after_it_was_kept(gpu):
    kept, output = some_kept(), torch.ones(3)
    with gpu:
        kept.keep(output)
        output.add_(1)
        assert kept.get().tolist() == [1, 1, 1]
        kept.own()
        kept.fetch()
        assert kept.get().tolist() == [1, 1, 1]


def test_an_output_that_is_kept_again_while_it_comes_back(gpu):
    kept = some_kept()
    with gpu:
        kept.keep(torch.ones(3))
        kept.fetch()
        kept.keep(torch.zeros(3))
        assert kept.get().tolist() == [0, 0, 0]
        kept.fetch()
        kept.free()
        assert kept.get() is None


def test_a_line_is_drawn_through_what_has_come_back(gpu):
    kept = some_kept(dtype=torch.bfloat16)
    with gpu:
        kept.keep((torch.tensor([1.0]), None, torch.tensor([3])), Line(remembered=True))
        kept.keep((torch.tensor([3.0]), None, torch.tensor([7])), Line(gap=2))
        line, nothing, whole = kept.get()
    assert (line.tolist(), nothing, whole.tolist()) == ([4.0], None, [7])
    assert line.dtype == torch.float32


def use_everything(kept):
    output = torch.ones(3) * 2
    kept.keep(output)
    output.add_(1)
    kept.backup()
    return kept.get() + 1


def forget_to_wait_for_the_computation(monkeypatch):
    monkeypatch.setattr(FakeStream, "wait_stream", lambda *_: None)


def forget_to_wait_for_the_arrival(monkeypatch):
    monkeypatch.setattr(FakeStream, "wait_event", lambda *_: None)


def forget_the_allocator(monkeypatch):
    monkeypatch.setattr(side_stream.Cuda, "record", lambda *_: None)


def forget_to_settle(monkeypatch):
    monkeypatch.setattr(side_stream.SideStream, "settle", lambda *_: None)


def forget_the_copy(monkeypatch):
    monkeypatch.setattr(Storage, "_put", lambda self, tensor: next(iter(self._sides.values())).send(tensor))


@pytest.mark.parametrize(
    ("forget", "notices"),
    [
        (forget_to_wait_for_the_computation, "copied before it was computed"),
        (forget_to_wait_for_the_arrival, "used before it has arrived"),
        (forget_the_allocator, "which the allocator does not know of"),
        (forget_to_settle, "used before it has arrived"),
        (forget_the_copy, "changed before it was copied"),
    ],
)
def test_the_stand_in_notices_what_is_missing(gpu, monkeypatch, forget, notices):
    kept = some_kept()
    with gpu:
        kept.keep(torch.ones(3))
        kept.get()
        forget(monkeypatch)
        with pytest.raises(Race, match=notices):
            use_everything(kept)
