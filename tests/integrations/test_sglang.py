from __future__ import annotations

import json
import sys
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ecad
from ecad import CacheSchedule, EcadError
from ecad.cli import main
from ecad.integrations.sglang import config_file, environment, request_params
from ecad.schedules.front import Front, Point
from ecad.sites.names import DENOISER_SITES

# What SGLang 0.5.23 takes: `CACHE_DIT_REQUEST_KNOB_KEYS`, `CACHE_DIT_REQUEST_SCM_KEYS`, and `envs.py`.
REQUEST_KEYS = {
    *("Fn_compute_blocks", "Bn_compute_blocks", "max_warmup_steps", "residual_diff_threshold"),
    *("max_continuous_cached_steps", "enable_taylorseer", "taylorseer_order"),
    *("enable_dmd", "dmd_history", "dmd_rank", "dmd_ridge", "dmd_svd_precision"),
    *("scm_preset", "scm_compute_bins", "scm_cache_bins", "scm_policy"),
}
VARIABLES = {
    *("ENABLED", "FN", "BN", "WARMUP", "RDT", "MC", "TAYLORSEER", "TS_ORDER"),
    *("SCM_PRESET", "SCM_COMPUTE_BINS", "SCM_CACHE_BINS", "SCM_POLICY"),
}


def made(computed: list[bool], **rest: object) -> CacheSchedule:
    return CacheSchedule(np.array(computed)[:, None], DENOISER_SITES, name="made", **rest)


@st.composite
def computed_steps(draw: st.DrawFn) -> list[bool]:
    steps = [True, *draw(st.lists(st.booleans(), min_size=1, max_size=40))]
    return steps if not all(steps) else [*steps, False]


@given(computed=computed_steps(), forecast=st.booleans())
def test_masks_and_bins_are_the_schedule(computed: list[bool], forecast: bool) -> None:
    schedule = made(computed, forecast=forecast)
    config = config_file(schedule)["cache_config"]
    assert config["steps_computation_mask"] == [int(one) for one in computed]
    assert config["num_inference_steps"] == len(computed)
    params = request_params(schedule)
    assert set(params) <= REQUEST_KEYS
    bins = zip_longest(params["scm_compute_bins"], params["scm_cache_bins"], fillvalue=0)
    assert list(chain.from_iterable([True] * some + [False] * others for some, others in bins)) == computed
    assert params["enable_taylorseer"] is config["enable_taylorseer"] is forecast
    told = environment(schedule)
    assert {name.removeprefix("SGLANG_CACHE_DIT_") for name in told} <= VARIABLES
    assert [int(one) for one in told["SGLANG_CACHE_DIT_SCM_COMPUTE_BINS"].split(",")] == params["scm_compute_bins"]


@given(computed=computed_steps())
def test_cache_dit_makes_the_same_mask_of_the_bins(computed: list[bool]) -> None:
    cache_dit = pytest.importorskip("cache_dit")
    params = request_params(made(computed))
    mask = cache_dit.steps_mask(
        compute_bins=params["scm_compute_bins"], cache_bins=params["scm_cache_bins"], total_steps=len(computed)
    )
    assert mask == [int(one) for one in computed]


def test_cache_dit_computes_the_steps_of_the_file(tmp_path: Path) -> None:
    cache_dit = pytest.importorskip("cache_dit")
    pipe = ecad.get_image_generator("EmojiImageGenerator").pipe
    computed = [True, True, False, True, False, False, False, True]
    file = tmp_path / "cache-dit.json"
    file.write_text(json.dumps(config_file(made(computed, forecast=True))))
    ran: list[int] = []
    for number, block in enumerate(pipe.transformer.transformer_blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    blocks = len(pipe.transformer.transformer_blocks)
    adapter = cache_dit.get_adapter(pipe)
    cache_dit.enable_cache(adapter, **cache_dit.load_configs(str(file)))
    size = {"height": 64, "width": 64, "use_resolution_binning": False}
    pipe("a fox", num_inference_steps=len(computed), output_type="latent", **size)
    cache_dit.disable_cache(adapter)
    assert ran == list(chain.from_iterable(range(blocks) if one else [0] for one in computed))


def test_a_schedule_without_a_cached_step_is_refused() -> None:
    with pytest.raises(EcadError, match="has no step that reuses everything: SGLang runs whole steps"):
        config_file(made([True, True]))


def test_the_command_picks_from_a_front_and_resamples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    half, third = made([True, False] * 6), made([True, False, False] * 4)
    Front("front", [Point(half, 1 / 2, 40.0), Point(third, 1 / 3, 30.0)]).save(tmp_path / "front.json")
    output = tmp_path / "out.json"
    words = [str(tmp_path / "front.json"), "--speedup", "3", "--steps", "24", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["ecad", "schedule", "sglang", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert json.loads(output.read_text()) == config_file(third.resample(24))
    assert "export SGLANG_CACHE_DIT_ENABLED=true\n" in capsys.readouterr().out
