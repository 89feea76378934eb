"""Times, rounds and bytes of rivals: `benchmarks/rivals/measure.py`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

STEPS = 5


def test_speed_ups_are_told_beside_uncached_images_of_that_minute(rivals, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    measure, clock = rivals.measure, [0]
    costs = {f"s-{i}": 1 / (1 + i) for i in range(20)} | {"uncached": 1.0}

    def on_a_machine_that_slows_down(runs, **_):  # type: ignore[no-untyped-def]
        found = {}
        for key in runs:
            clock[0] += 1
            found[key] = [costs[key] * (1 + 0.02 * clock[0])]
        return found

    monkeypatch.setattr(measure, "measure_interleaved", on_a_machine_that_slows_down)
    made = SimpleNamespace(pipe=None, encode=lambda prompts: None, generate=lambda *_, **__: None)
    uncached = SimpleNamespace(key="uncached", applied=lambda pipe: nullcontext(), steps=None)
    settings = [SimpleNamespace(**{**vars(uncached), "key": key}) for key in costs if key != "uncached"]
    rounds = [measure.time_settings(made, uncached, settings, [], [], STEPS, number) for number in range(2)]
    assert list(rounds[0]) != list(rounds[1])
    for times in rounds:
        assert set(times) == set(costs) - {"uncached"}
        for key, (seconds, beside) in times.items():
            assert beside / seconds == pytest.approx(1 / costs[key], rel=0.1)


def test_a_later_run_times_only_what_misses_rounds(rivals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    measure, timed, said = rivals.measure, [], []

    def record(_, __, settings, *rest):  # type: ignore[no-untyped-def]
        number = rest[-1]
        timed.append((number, [setting.key for setting in settings]))
        return {setting.key: [1.0 + number, 2.0] for setting in settings}

    def run(rounds: int, *keys: str) -> dict:
        timed.clear()
        settings = [SimpleNamespace(key=key) for key in keys]
        file = tmp_path / "times.json"
        found = measure.time_rounds(None, None, settings, [], [], STEPS, rounds, file, said.append)
        return {key: times.tolist() for key, times in found.items()}

    monkeypatch.setattr(measure, "time_settings", record)
    assert run(0, "a") == {}
    assert run(2, "a") == {"a": [[1.0, 2.0], [2.0, 2.0]]}
    assert run(3, "a", "b") == {key: [[1.0, 2.0], [2.0, 2.0], [3.0, 2.0]] for key in "ab"}
    assert timed == [(0, ["b"]), (1, ["b"]), (2, ["a", "b"])]
    assert said[-1] == "timing 2 settings, round 3 of 3"
    assert list(run(3, "b")) == ["b"]
    assert not timed


def test_memory_is_followed_to_the_byte(rivals) -> None:  # type: ignore[no-untyped-def]
    given, memory = torch.ones(100), rivals.measure.Memory()
    with memory:
        given.t().view(10, 10).add_(1)
        assert memory.peak == 0
        kept = given + 1
        assert memory.peak == 400
        given * kept * 2
        assert memory.peak == 1200
        kept[:50].clone()
        kept.sum()
    assert memory.peak == 1200
    with memory:
        other = [given + 1, given + 2]
        assert memory.peak == 1200
        other.append(given + 3)
    assert memory.peak == 1600
    assert len(memory._held) == 4
    del kept, other
    assert not memory._held
    assert memory._now == 0
