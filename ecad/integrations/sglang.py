"""A schedule's whole steps for SGLang diffusion, which runs them with cache-dit. Written for SGLang 0.5.23.

SGLang has no place for another cache, so the steps that compute are the schedule's and what stands for the others is
cache-dit's: its first block runs and the others' effect is repeated, or extrapolated if the schedule forecasts.

    ecad schedule sglang front.json --speedup 2 --steps 28 --output cache-dit.json
    sglang serve --model-path MODEL --backend diffusers --cache-dit-config cache-dit.json
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from ecad.errors import EcadError
from ecad.schedules import CacheSchedule

_BLOCKS = {"Fn_compute_blocks": 1, "Bn_compute_blocks": 0}
# A static mask decides alone. These would compute further steps.
_NO_LIMITS = {"max_warmup_steps": 1, "max_continuous_cached_steps": -1, "residual_diff_threshold": 1e9}


def config_file(schedule: CacheSchedule) -> dict[str, dict[str, object]]:
    """What a file for `--cache-dit-config` holds (`--backend diffusers`), as JSON values.

    Args:
        schedule: whose whole steps run, at its own number of steps.

    Raises:
        EcadError: no step reuses everything.
    """
    mask = [int(computes) for computes in _whole_steps(schedule)]
    return {
        "cache_config": {
            **_BLOCKS,
            **_NO_LIMITS,
            "num_inference_steps": schedule.num_steps,
            "steps_computation_mask": mask,
            "steps_computation_policy": "static",
            "enable_taylorseer": schedule.forecast,
            "taylorseer_order": 1,
        }
    }


def request_params(schedule: CacheSchedule) -> dict[str, Any]:
    """What one request of SGLang's own backend says as its `cache_dit_params`; arguments and errors as for
    `config_file`.

    >>> from ecad.schedules import heuristics, pixart_sites
    >>> params = request_params(heuristics.every_n(pixart_sites(1), 7, 3))
    >>> params["scm_compute_bins"], params["scm_cache_bins"]
    ([1, 1, 1], [2, 2])
    """
    computed, cached = _bins(_whole_steps(schedule))
    return {
        **_BLOCKS,
        **_NO_LIMITS,
        "enable_taylorseer": schedule.forecast,
        "taylorseer_order": 1,
        "scm_compute_bins": computed,
        "scm_cache_bins": cached,
        "scm_policy": "static",
    }


def environment(schedule: CacheSchedule) -> dict[str, str]:
    """The variables that set a whole server of SGLang's own backend; arguments and errors as for `config_file`."""
    params = request_params(schedule)
    return {
        "SGLANG_CACHE_DIT_ENABLED": "true",
        "SGLANG_CACHE_DIT_FN": str(params["Fn_compute_blocks"]),
        "SGLANG_CACHE_DIT_BN": str(params["Bn_compute_blocks"]),
        "SGLANG_CACHE_DIT_WARMUP": str(params["max_warmup_steps"]),
        "SGLANG_CACHE_DIT_RDT": str(params["residual_diff_threshold"]),
        "SGLANG_CACHE_DIT_MC": str(params["max_continuous_cached_steps"]),
        "SGLANG_CACHE_DIT_TAYLORSEER": str(params["enable_taylorseer"]).lower(),
        "SGLANG_CACHE_DIT_TS_ORDER": str(params["taylorseer_order"]),
        "SGLANG_CACHE_DIT_SCM_COMPUTE_BINS": ",".join(map(str, params["scm_compute_bins"])),
        "SGLANG_CACHE_DIT_SCM_CACHE_BINS": ",".join(map(str, params["scm_cache_bins"])),
        "SGLANG_CACHE_DIT_SCM_POLICY": params["scm_policy"],
    }


def _whole_steps(schedule: CacheSchedule) -> list[bool]:
    computed: list[bool] = [True, *np.asarray(schedule.recompute.any(axis=1))[1:].tolist()]
    if all(computed):
        raise EcadError(
            f"schedule {schedule.name!r} has no step that reuses everything: SGLang runs whole steps; choose one that "
            "forecasts, or one of a front of whole steps"
        )
    return computed


def _bins(computed: Sequence[bool]) -> tuple[list[int], list[int]]:
    """The lengths of runs of steps that compute, and of those in between that do not."""
    runs = [(computes, len(list(run))) for computes, run in groupby(computed)]
    return [length for computes, length in runs if computes], [length for computes, length in runs if not computes]
