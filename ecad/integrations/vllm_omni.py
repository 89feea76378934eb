"""A cache backend for vLLM-Omni that runs the whole steps of a schedule. Written for vLLM-Omni 0.30.0.

    vllm serve MODEL --omni --cache-backend ecad --cache-config '{"schedule": "front.json", "speedup": 2.0}'

`register`, the plugin by which vLLM-Omni finds it, is declared in this package's entry points
(`vllm_omni.general_plugins`). Which steps run is known before a request begins, so all ranks of a parallel run skip the
same ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ecad.errors import EcadError
from ecad.integrations.chosen import chosen_schedule
from ecad.schedules import CacheSchedule
from ecad.schedules.by_sigma import as_whole_steps

if TYPE_CHECKING:
    from ecad.runtime.cache import CacheRun

NAME = "ecad"
# Where vLLM-Omni looks up backends by name: the selector, and the runner that has imported it.
_LOOKUPS = ("vllm_omni.diffusion.cache.selector", "vllm_omni.diffusion.worker.diffusion_model_runner")


class EcadCacheBackend:
    """The interface of `vllm_omni.diffusion.cache.base.CacheBackend`.

    Args:
        config: with `schedule`, the file of a schedule or a front, and of a front `speedup` or `quality`.
    """

    def __init__(self, config: object) -> None:
        self.config = config
        self.enabled = False
        self._schedule: CacheSchedule | None = None
        self._run: CacheRun | None = None

    def enable(self, pipeline: object) -> None:
        """Run the pipeline's denoiser under the schedule; called once, when the pipeline is loaded.

        Args:
            pipeline: one of vLLM-Omni's own, with a denoiser and a scheduler.

        Raises:
            EcadError: the config names no schedule, or the pipeline has no denoiser.
            ScheduleError: the schedule is malformed or does not fit.
        """
        file = getattr(self.config, "schedule", None)
        if file is None:
            raise EcadError(
                f'--cache-backend {NAME}: --cache-config needs "schedule", the file of a schedule or a front'
            )
        wanted = {name: getattr(self.config, name, None) for name in ("speedup", "quality")}
        self._schedule = as_whole_steps(chosen_schedule(file, **wanted))
        self._enable(pipeline, self._schedule)
        self.enabled = True

    def refresh(self, pipeline: object, num_inference_steps: int, verbose: bool = True) -> None:
        """Forget what another request left, and run the schedule for this request's number of steps.

        Args:
            pipeline: as for `enable`.
            num_inference_steps: of the request; 0 if it does not say.
            verbose: whether to log.
        """
        assert self._schedule is not None
        assert self._run is not None
        steps = num_inference_steps or self._schedule.num_steps
        running = next(iter(self._run.schedules.values()))
        if running.num_steps != steps:
            self._enable(pipeline, self._schedule.resample(steps))
        if verbose:
            computed = int(self._schedule.resample(steps).recompute.sum())
            logging.getLogger(__name__).info("ecad: %s computes %d of %d steps", self._schedule.name, computed, steps)

    def is_enabled(self) -> bool:
        """Whether the cache is enabled."""
        return self.enabled

    def _enable(self, pipeline: object, schedule: CacheSchedule) -> None:
        from ecad.runtime.cache import enable_cache

        if self._run is not None:
            self._run.disable()
        self._run = enable_cache(_Loop(pipeline), schedule)


class _Loop:
    """What the runtime needs of a pipeline: its denoiser and its scheduler. vLLM-Omni's pipelines are modules, and a
    module by itself is taken for a denoiser.
    """

    def __init__(self, pipeline: object) -> None:
        self._pipeline = pipeline

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._pipeline, name)


def register() -> None:
    """Have vLLM-Omni know the backend by its name; nothing happens the second time."""
    from importlib import import_module

    for place in _LOOKUPS:
        module: Any = import_module(place)
        known = module.get_cache_backend
        if not getattr(known, "knows_ecad", False):
            module.get_cache_backend = _with_ecad(known)


def _with_ecad(known: Callable[..., object]) -> Callable[..., object]:
    def get_cache_backend(cache_backend: str | None, cache_config: object) -> object:
        if cache_backend != NAME:
            return known(cache_backend, cache_config)
        if isinstance(cache_config, dict):
            from vllm_omni.diffusion.data import DiffusionCacheConfig

            cache_config = DiffusionCacheConfig.from_dict(cache_config)
        return EcadCacheBackend(cache_config)

    get_cache_backend.knows_ecad = True  # type: ignore[attr-defined]
    return get_cache_backend
