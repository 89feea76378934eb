from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vllm_omni_standins as host
from diffusers import FlowMatchEulerDiscreteScheduler

from ecad import CacheSchedule, EcadError
from ecad.integrations.vllm_omni import EcadCacheBackend, register
from ecad.schedules.front import Front, Point
from ecad.sites.names import DENOISER_SITES

PROMPT, NEGATIVE, LATENTS = (torch.randn(2, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3))


def schedule_of(computed: list[int], steps: int = 10, **rest: Any) -> CacheSchedule:
    bits = np.zeros((steps, 1), dtype=bool)
    bits[computed] = True
    return CacheSchedule(bits, DENOISER_SITES, name="found", forecast=True, **rest)


@pytest.fixture
def pipeline() -> host.Pipeline:
    torch.manual_seed(0)
    return host.Pipeline(host.Transformer(), FlowMatchEulerDiscreteScheduler())


def run(pipeline: host.Pipeline, steps: int = 10) -> torch.Tensor:
    return pipeline(LATENTS, PROMPT, NEGATIVE, steps)


def backend_of(schedule: CacheSchedule, folder: Path) -> EcadCacheBackend:
    schedule.save(folder / "schedule.json")
    config = host.DiffusionCacheConfig.from_dict({"schedule": str(folder / "schedule.json")})
    return EcadCacheBackend(config)


def test_a_schedule_that_computes_everything_changes_no_bit(pipeline: host.Pipeline, tmp_path: Path) -> None:
    expected = run(pipeline)
    backend = backend_of(schedule_of(list(range(10))), tmp_path)
    assert not backend.is_enabled()
    backend.enable(pipeline)
    assert backend.is_enabled()
    backend.refresh(pipeline, 10)
    assert torch.equal(run(pipeline), expected)


def test_requests_run_the_steps_of_the_schedule_and_are_alike(pipeline: host.Pipeline, tmp_path: Path) -> None:
    backend = backend_of(schedule_of([0, 1, 2, 4, 6, 8]), tmp_path)
    exact = run(pipeline)
    backend.enable(pipeline)
    found = []
    for _ in range(2):
        backend.refresh(pipeline, num_inference_steps=10, verbose=False)
        pipeline.transformer.forwards = 0
        found.append(run(pipeline))
        assert pipeline.transformer.forwards == 2 * 6
    assert torch.equal(*found)
    assert not torch.equal(found[0], exact)
    off = found[0] - exact
    assert off.std() < 0.05 * exact.std()


def test_another_number_of_steps_is_resampled(pipeline: host.Pipeline, tmp_path: Path) -> None:
    schedule = schedule_of([0, 1, 2, 4, 6, 8])
    backend = backend_of(schedule, tmp_path)
    backend.enable(pipeline)
    for steps in (20, 5, 10):
        backend.refresh(pipeline, steps)
        pipeline.transformer.forwards = 0
        run(pipeline, steps)
        assert pipeline.transformer.forwards == 2 * int(schedule.resample(steps).recompute.sum())


def test_a_schedule_of_a_models_components_runs_its_whole_steps(pipeline: host.Pipeline, tmp_path: Path) -> None:
    bits = np.zeros((10, 2), dtype=bool)
    bits[[0, 3, 6]], bits[5, 1] = True, True
    backend = backend_of(CacheSchedule(bits, [("layers.0", "attn"), ("layers.0", "ff")], forecast=True), tmp_path)
    backend.enable(pipeline)
    pipeline.transformer.forwards = 0
    run(pipeline)
    assert pipeline.transformer.forwards == 2 * 4


def test_the_plugin_makes_the_backend_known_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runner = host.install(monkeypatch)
    front = Front("front", [Point(schedule_of([0, 5]), 0.2, 30.0), Point(schedule_of([0, 2, 4, 6, 8]), 0.5, 40.0)])
    front.save(tmp_path / "front.json")
    register()
    once = runner.get_cache_backend
    register()
    assert runner.get_cache_backend is once
    assert once("none", None) is None
    with pytest.raises(ValueError, match="Unsupported cache backend: other"):
        once("other", {})
    backend = once("ecad", {"schedule": str(tmp_path / "front.json"), "speedup": 3.0})
    torch.manual_seed(0)
    pipeline = host.Pipeline(host.Transformer(), FlowMatchEulerDiscreteScheduler())
    backend.enable(pipeline)
    run(pipeline)
    assert pipeline.transformer.forwards == 2 * 2


def test_a_config_without_a_schedule_is_refused(pipeline: host.Pipeline) -> None:
    with pytest.raises(EcadError, match=r'--cache-config needs "schedule"'):
        EcadCacheBackend(host.DiffusionCacheConfig.from_dict({})).enable(pipeline)
