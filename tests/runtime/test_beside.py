"""Networks beside the denoiser, ControlNets: left out in the steps in which the denoiser does not run."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from tiny_pipelines import make_flux
from tiny_unets import latents, made
from whole_steps import COMPUTED, count_runs, products_of, schedule_of

import ecad
from ecad.runtime import beside
from ecad.schedules import heuristics

ROWS = 7


def without_leaving_out(monkeypatch: pytest.MonkeyPatch, pipe: Any, call: Any, schedule: Any, **changes: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(beside, "NAMES", ())
        with ecad.cached(pipe, schedule):
            return latents(pipe, call, **changes)


@pytest.mark.parametrize("changes", [{}, {"guess_mode": True}, {"control_guidance_end": 0.5}, {"guidance_scale": 1.0}])
@pytest.mark.parametrize("how", ["repeated", "fitted"])
def test_it_runs_in_the_computed_steps_only(how: str, changes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, call = made("controlled")
    bare = latents(pipe, call, **changes)
    rest = {"forecast": True, "output_products": products_of(ROWS)} if how == "fitted" else {}
    schedule = schedule_of(COMPUTED, ROWS, **rest)
    expected = without_leaving_out(monkeypatch, pipe, call, schedule, **changes)
    forward = pipe.controlnet.forward
    runs = count_runs(pipe.controlnet)
    with ecad.cached(pipe, schedule) as run:
        for n in (1, 2):
            assert torch.equal(latents(pipe, call, **changes), expected)
            assert runs[0] == n * len(COMPUTED)
        run.switch()
        assert torch.equal(latents(pipe, call, **changes), bare)
        assert runs[0] == 2 * len(COMPUTED) + ROWS
    assert not torch.equal(expected, bare)
    assert pipe.controlnet.forward == forward
    assert "forward" not in vars(pipe.controlnet)


def test_an_ended_generation_is_let_go() -> None:
    """The network held the generation that had called it last, and with it all kept outputs, until the next one."""
    ended = type("Ended", (SimpleNamespace,), {})  # which weak references can point to
    generations = [ended(rows=SimpleNamespace(now=0), rests=lambda row: False)]
    alive = weakref.ref(generations[0])
    network = torch.nn.Linear(1, 1)
    around = beside.NetworkBeside(network, lambda: generations[0])
    with torch.no_grad():
        around._leave_out_or_run(network.forward, (torch.zeros(1, 1),), {})
    generations.clear()
    assert alive() is None


def test_it_is_left_out_in_the_second_step() -> None:
    pipe, call = made("controlled")
    runs = count_runs(pipe.controlnet)
    with ecad.cached(pipe, schedule_of([0], ROWS)):
        latents(pipe, call)
    assert runs[0] == 1


def test_several_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, call = made("controlled")
    one = pipe.controlnet
    pipe.controlnet = diffusers.MultiControlNetModel([one, one])
    call = {**call, "image": [call["image"], call["image"].flip(-1)], "controlnet_conditioning_scale": [0.5, 1.0]}
    schedule = schedule_of(COMPUTED, ROWS, forecast=True)
    expected = without_leaving_out(monkeypatch, pipe, call, schedule)
    runs = count_runs(one)
    with ecad.cached(pipe, schedule):
        assert torch.equal(latents(pipe, call), expected)
    assert runs[0] == 2 * len(COMPUTED)


def test_it_runs_wherever_the_denoiser_does() -> None:
    tiny = make_flux()
    control = diffusers.FluxControlNetModel.from_transformer(
        tiny.pipe.transformer, num_layers=1, num_single_layers=0, attention_head_dim=8, num_attention_heads=2
    )
    for part in control.controlnet_blocks:
        torch.nn.init.normal_(part.weight)
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(2,) * 4,
        norm_num_groups=1,
        shift_factor=0.0,
        scaling_factor=1.0,
    )
    tiny.pipe = diffusers.FluxControlNetPipeline(**{**tiny.pipe.components, "vae": vae}, controlnet=control)
    tiny.pipe.set_progress_bar_config(disable=True)
    tiny.call["control_image"] = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    sites = tuple(tiny.components)
    bits = np.ones((4, len(sites)), dtype=bool)
    bits[1] = False
    bits[2, 1:] = False
    runs = count_runs(control)
    for forecast, expected in ((True, 3), (False, 4)):
        runs[0] = 0
        with ecad.cached(tiny.pipe, ecad.CacheSchedule(bits, sites, forecast=forecast)):
            tiny.run()
        assert runs[0] == expected


def test_a_pass_that_begins_where_it_was_left_out_is_an_error() -> None:
    pipe, call = made("controlled")

    def no_more_guidance(pipe: Any, row: int, time: Any, now: dict[str, Any]) -> dict[str, Any]:
        return {"prompt_embeds": now["prompt_embeds"] + 1} if row == 1 else {}

    schedule = heuristics.every_n(schedule_of([0], ROWS).sites, ROWS, ROWS)
    with (
        ecad.cached(pipe, schedule),
        pytest.raises(ecad.EcadError, match="unet has to run in row 2 of a pass that begins there, after a network"),
    ):
        latents(pipe, call, callback_on_step_end=no_more_guidance, callback_on_step_end_tensor_inputs=["prompt_embeds"])
