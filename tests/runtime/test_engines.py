"""Denoisers that are no torch modules: whatever a pipeline calls."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_unets import latents, made
from whole_steps import COMPUTED, products_of, schedule_of

import ecad
from ecad.runtime.compatibility import configuration_of, layout_of
from ecad.schedules.provenance import Provenance
from ecad.sites.discovery import denoisers, discover
from ecad.utils.fingerprints import weights_fingerprint


class Session:
    """An engine whose inside is closed: it is called, has a configuration and no parameters."""

    def __init__(self, unet: torch.nn.Module) -> None:
        self.run, self.config, self.dtype, self.runs = unet.forward, unet.config, unet.dtype, 0
        self.add_embedding = getattr(unet, "add_embedding", None)  # SDXL's pipeline asks for its size

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.runs += 1
        return self.run(*args, **kwargs)


class WithForward(Session):
    """The same with a `forward` that says its arguments, as ONNX Runtime's engines in optimum have."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(self, sample: Any, timestep: Any, encoder_hidden_states: Any, **rest: Any) -> Any:
        self.runs += 1
        return self.run(sample, timestep, encoder_hidden_states, **rest)


def function_of(unet: torch.nn.Module) -> Any:
    def engine(*args: Any, **kwargs: Any) -> Any:
        engine.runs += 1  # type: ignore[attr-defined]
        return unet.forward(*args, **kwargs)

    for name, value in vars(Session(unet)).items():
        setattr(engine, name, value)
    return engine


KINDS: dict[str, Callable[[torch.nn.Module], Any]] = {
    "called": Session,
    "with a forward": WithForward,
    "a function": function_of,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["sdxl", "sd15"])
def test_an_engine_runs_in_the_computed_steps_only(name: str, kind: str) -> None:
    pipe, call = made(name)
    rows = 7 if name == "sd15" else 6
    exact = latents(pipe, call)
    schedule = schedule_of(COMPUTED, rows, forecast=True, output_products=products_of(rows))
    with ecad.cached(pipe, schedule):
        expected = latents(pipe, call)
    engine = pipe.unet = KINDS[kind](pipe.unet)
    before = {**vars(pipe)}
    run = ecad.enable_cache(pipe, schedule)
    assert torch.equal(latents(pipe, call), expected)
    assert engine.runs == len(COMPUTED)
    run.switch(schedule_of(list(range(rows)), rows))
    assert torch.equal(latents(pipe, call), exact)
    run.switch()
    assert torch.equal(latents(pipe, call), exact)
    run.disable()
    assert vars(pipe) == before
    assert pipe.unet is engine
    assert torch.equal(latents(pipe, call), exact)
    assert engine.runs == len(COMPUTED) + 3 * rows


def test_an_engine_is_one_site_of_its_own_class() -> None:
    pipe, _ = made("sdxl")
    unet = pipe.unet
    engine = pipe.unet = Session(unet)
    assert denoisers(pipe) == {"unet": engine}
    schedule = ecad.CacheSchedule.for_model(pipe, 6)
    assert (schedule.name, len(schedule.sites)) == ("Session_none", 1)
    origin = Provenance("Session", layout_of(engine, discover(engine)), configuration_of(engine))
    known = schedule.replace(attributes={"provenance": origin.to_json()})
    ecad.enable_cache(pipe, known)
    ecad.disable_cache(pipe)
    assert configuration_of(engine) == configuration_of(unet)
    pipe.unet = unet
    with pytest.raises(ecad.ScheduleError, match="for a denoiser of another layout"):
        ecad.enable_cache(pipe, known)


def test_weights_that_cannot_be_seen_have_no_fingerprint() -> None:
    pipe, _ = made("sdxl")
    with pytest.raises(ecad.EcadError, match="Session is no torch module, and its weights have no fingerprint"):
        weights_fingerprint(Session(pipe.unet))


def test_enabling_again_a_copy_and_a_second_pipeline() -> None:
    pipe, call = made("sdxl")
    exact = latents(pipe, call)
    engine = pipe.unet = Session(pipe.unet)
    other = type(pipe)(**pipe.components, add_watermarker=False)
    other.set_progress_bar_config(disable=True)
    schedule = schedule_of(COMPUTED, 6)
    ecad.enable_cache(pipe, schedule_of([0], 6))
    ecad.enable_cache(pipe, schedule)
    cached = latents(pipe, call)
    assert engine.runs == len(COMPUTED)
    assert torch.equal(latents(other, call), exact)
    ecad.enable_cache(other, schedule)
    assert torch.equal(latents(other, call), cached)
    assert torch.equal(latents(pipe, call), cached)
    assert torch.equal(latents(copy.deepcopy(pipe), call), exact)
    ecad.disable_cache(pipe)
    assert torch.equal(latents(pipe, call), exact)
    assert torch.equal(latents(other, call), cached)
    ecad.disable_cache(other)
    assert pipe.unet is other.unet is engine


def test_an_engine_that_was_replaced_is_told() -> None:
    pipe, call = made("sdxl")
    unet = pipe.unet
    pipe.unet = Session(unet)
    ecad.enable_cache(pipe, schedule_of(COMPUTED, 6))
    pipe.unet = Session(unet)
    with pytest.raises(ecad.EcadError, match="unet was replaced after its cache was enabled"):
        latents(pipe, call)


class OnnxUnet:
    """A UNet in ONNX Runtime, with what diffusers' pipeline asks of a denoiser."""

    def __init__(self, unet: torch.nn.Module, call: dict[str, Any]) -> None:
        onnxruntime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
        self.config, self.dtype, self.runs = unet.config, unet.dtype, 0
        channels, size, length = unet.config.in_channels, unet.config.sample_size, call["prompt_embeds"].shape[1]
        inputs = {
            "sample": torch.zeros(2, channels, size, size),  # with and without the prompt
            "timestep": torch.tensor(1),
            "encoder_hidden_states": torch.zeros(2, length, unet.config.cross_attention_dim),
        }
        file = io.BytesIO()
        torch.onnx.export(
            FirstOutput(unet).eval(), tuple(inputs.values()), file, dynamo=False, input_names=list(inputs)
        )
        self.session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])

    def __call__(self, sample: torch.Tensor, timestep: torch.Tensor, **rest: Any) -> tuple[torch.Tensor]:
        self.runs += 1
        text = rest["encoder_hidden_states"]
        given = {"sample": sample, "timestep": timestep, "encoder_hidden_states": text}
        return (torch.from_numpy(self.session.run(None, {key: value.numpy() for key, value in given.items()})[0]),)


class FirstOutput(torch.nn.Module):
    """The form of a UNet that can be exported."""

    def __init__(self, unet: torch.nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.unet(sample, timestep, text, return_dict=False)[0]
        return found


def test_an_onnx_session_runs_in_the_computed_steps_only() -> None:
    pipe, call = made("sd15")
    of_torch = latents(pipe, call)
    engine = pipe.unet = OnnxUnet(pipe.unet, call)
    exact = latents(pipe, call)
    assert torch.allclose(exact, of_torch, atol=1e-3)
    assert engine.runs == 7
    with ecad.cached(pipe, schedule_of(list(range(7)), 7)):
        assert torch.equal(latents(pipe, call), exact)
    engine.runs = 0
    with ecad.cached(pipe, schedule_of(COMPUTED, 7)):
        cached = latents(pipe, call)
        assert torch.equal(latents(pipe, call), cached)
    assert engine.runs == 2 * len(COMPUTED)
    assert not torch.equal(cached, exact)
    assert torch.equal(latents(pipe, call), exact)
