"""The tool behind docs/compatibility.md: its interpreter, its modes and its page."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from types import SimpleNamespace

import diffusers
import numpy as np
import page
import pytest
import sweep
import torch
from case import Case
from copies import in_copy, in_processes
from interpreter import NotTheSame, interpret
from recording import record
from reference import interpret as interpret_by_order
from subjects import Subject, tensors
from tiny_unets import sd15
from zoo import ZOO, Specimen

import ecad
from ecad.sites.discovery import denoisers


class _Test:
    """Stands in for a test of diffusers'."""

    def __init__(self, specimen: Specimen) -> None:
        self.call = specimen.call

    def get_dummy_inputs(self) -> dict:
        return dict(self.call)


def subject(name: str) -> Subject:
    specimen = ZOO[name]()
    return Subject(specimen.pipe, _Test(specimen))


@pytest.mark.parametrize("name", ["PixArt-alpha", "FLUX.1 dev, true guidance", "FLUX.1 img2img", "Wan 2.2"])
def test_the_interpreter_agrees_with_one_that_goes_by_order(name):
    specimen = ZOO[name]()
    schedules = specimen.schedules(3)
    expected = interpret_by_order(specimen, schedules)
    modules = denoisers(specimen.pipe)
    recording = record(specimen.run, modules)
    found = interpret(specimen.run, modules, schedules, recording)
    assert torch.equal(found.output, expected.latents)
    assert not torch.equal(found.output, recording.output)
    rows = sorted({forward.row for forward in recording.forwards})
    assert rows == list(range(specimen.begin, specimen.rows))
    assert recording.passes() == specimen.passes


def test_rows_of_a_second_order_sampler_are_its_own_index():
    specimen = ZOO["PixArt-alpha"]()
    specimen.pipe.scheduler = diffusers.HeunDiscreteScheduler()
    recording = record(specimen.run, denoisers(specimen.pipe))
    assert [forward.row for forward in recording.forwards] == list(range(7))
    assert recording.rows == [7]


class _Loop:
    """Guidance in some rows only, by two forwards of a model that is told nothing but its text."""

    def __init__(self, guided: tuple[int, ...], named: bool) -> None:
        self.transformer = ZOO["Wan 2.1"]().pipe.transformer
        self.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
        self.guided, self.named = guided, named

    @torch.no_grad()
    def __call__(self) -> torch.Tensor:
        draw = torch.Generator().manual_seed(0)
        latents, cond, uncond = (torch.randn(*shape, generator=draw) for shape in ((1, 4, 2, 8, 8), *[(1, 5, 12)] * 2))
        self.scheduler.set_timesteps(4)
        for row, timestep in enumerate(self.scheduler.timesteps):
            flow = 0
            for name, text in (("uncond", uncond), ("cond", cond))[row not in self.guided :]:
                with self.transformer.cache_context(name) if self.named else _nothing():
                    flow = flow + self.transformer(latents, timestep[None], text, return_dict=False)[0]
            latents = self.scheduler.step(flow, timestep, latents, return_dict=False)[0]
        return latents


@contextmanager
def _nothing():
    yield


@pytest.mark.parametrize("named", [True, False])
def test_passes_are_told_apart_by_name_or_by_what_they_read(named):
    loop = _Loop((0, 2), named)
    recording = record(loop, {"transformer": loop.transformer})
    uncond, cond, only, *last = [forward.key for forward in recording.forwards]
    assert uncond != cond
    assert only == cond
    assert last == [uncond, cond, cond]


def test_a_pass_that_missed_a_row_starts_anew():
    loop = _Loop((0, 2), named=True)
    modules = {"transformer": loop.transformer}
    schedule = ecad.CacheSchedule.for_model(loop.transformer, steps=4)
    schedule = schedule.replace(recompute=np.zeros_like(schedule.recompute))
    recording = record(loop, modules)
    found = interpret(loop, modules, {"transformer": schedule}, recording)
    sites = len(schedule.sites)
    assert (found.computed, found.reused) == (3 * sites, 3 * sites)


def test_other_forwards_than_recorded_are_no_interpretation():
    loop = _Loop((0,), named=True)
    modules = {"transformer": loop.transformer}
    recording = record(loop, modules)
    loop.guided = (0, 1)
    with pytest.raises(NotTheSame):
        interpret(loop, modules, {}, recording)


@pytest.mark.parametrize("mode", ["eager", "second generation", "guidance off", "forecasts", "layerwise casting"])
def test_a_mode_passes_or_says_why_not(mode):
    found = sweep.judge(Case(subject("Wan 2.1")), mode)
    assert (found["result"], found["note"]) == ("pass", "")
    assert found["seen"]["passes"] == 2


def test_guidance_that_cannot_end_is_not_tried():
    found = sweep.judge(Case(subject("FLUX.1 dev")), "guidance off")
    assert found["result"] == "not tried"
    assert "does not end in mid-run" in found["note"]


def test_another_schedule_than_interpreted_is_wrong(monkeypatch):
    case = Case(subject("PixArt-alpha"))
    cached = case.cached

    def other(schedules):
        return cached({name: schedule.replace(recompute=~schedule.recompute) for name, schedule in schedules.items()})

    case.rows = 4
    monkeypatch.setattr(case, "cached", other)
    found = sweep.judge(case, "eager")
    assert found["result"] == "wrong"
    assert found["note"].startswith("random schedule 0: differs from the interpreted one by")


def test_bytes_that_stay_are_wrong(monkeypatch):
    case = Case(subject("PixArt-alpha"))

    @contextmanager
    def leaky(schedules):
        with cached(schedules):
            yield SimpleNamespace(stats=SimpleNamespace(cached_bytes=8, reused=1))

    cached = case.cached
    monkeypatch.setattr(case, "cached", leaky)
    assert sweep.judge(case, "second generation")["note"] == "8 bytes are still kept after the generation"


def test_a_pipeline_without_a_denoiser_is_refused():
    with pytest.raises(ecad.EcadError, match="cannot be cached"):
        Case(Subject(object(), None))


def test_a_unet_is_one_site():
    pipe, call = sd15()
    run = lambda: pipe(**call, num_inference_steps=3, output_type="latent", generator=torch.manual_seed(0)).images  # noqa: E731
    modules = denoisers(pipe)
    recording = record(run, modules)
    assert [forward.row for forward in recording.forwards] == [0, 1, 2, 3]
    schedule = ecad.CacheSchedule(np.array([[1], [0], [1], [0]], dtype=bool), (("denoiser", "output"),))
    found = interpret(run, modules, {"unet": schedule}, recording)
    assert (found.computed, found.reused) == (2, 2)
    assert not torch.equal(found.output, recording.output)


def test_copies_answer_die_or_hang():
    assert in_copy(lambda: 3, 60) == 3
    assert in_copy(lambda: exit(1), 60) is None
    begun = time.monotonic()
    assert in_copy(lambda: time.sleep(600), 0.5) is None
    assert time.monotonic() - begun < 300
    assert sorted(in_processes(2, lambda rank: rank)) == [0, 1]


def test_results_of_another_state_or_half_a_line_are_made_anew(tmp_path):
    entries = [{"key": key, "file": "a.py", "test": "T", "mode": mode} for key, mode in (("1", "eager"), ("2", "LoRA"))]
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"key": "1", "fi')
    lines, known = sweep.known_results(file, "1")
    assert [json.loads(line) for line in lines] == entries[:1]
    assert known == {("a.py:T", "eager")}


def test_the_page_says_what_each_cell_is():
    about = {"file": "flux/test_flux.py", "class": "FluxPipeline", "test": "T"}
    unet = {"file": "sd/test_sd.py", "class": "StableDiffusionPipeline", "test": "T"}
    entries = [
        {**about, "mode": "eager", "result": "wrong", "note": "an old one"},
        {**about, "mode": "eager", "result": "pass", "note": ""},
        {**about, "mode": "LoRA", "result": "wrong", "note": "a | b"},
        {**about, "mode": "forecasts", "result": "not tried", "note": "because"},
        {**unet, "mode": "all", "result": "refused", "note": "StableDiffusionPipeline cannot be cached"},
        {"file": "x/test_x.py", "mode": "all", "result": "not tried", "note": "no cv2"},
    ]
    text = page.page([(entries, {"torch": "2.9"})])
    assert "1 pipeline classes ran (1 set-ups); 1 are refused." in text
    row = next(line for line in text.splitlines() if line.startswith("| FluxPipeline |"))
    assert [cell.strip() for cell in row.split("|")[2:-1]] == [
        *("✓", "– 1", "– 1", "– 1", "– 2", "– 1", "– 1", "– 1", "**✗** 3", "– 1", "– 1")
    ]
    assert "1. not run for this page\n2. because\n3. a \\| b\n" in text
    assert "| – | 0 | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 0 | 1 | 1 |" in text
    assert "`... cannot be cached`\n\nStableDiffusionPipeline." in text
    assert "| x/test_x.py | no cv2 |" in text
    assert "Versions: torch 2.9." in text


def test_the_page_says_which_cells_are_of_which_state_of_the_code():
    about = {"file": "flux/test_flux.py", "class": "FluxPipeline", "test": "T", "note": ""}
    first = [{**about, "mode": mode, "result": "wrong"} for mode in ("eager", "second generation", "interrupted")]
    later = [{**about, "mode": mode, "result": "pass"} for mode in ("interrupted", "guidance off")]
    text = page.page([(first, {"torch": "2.9"}), (later, {"torch": "2.10"})])
    assert "Versions of eager (1), again (1): torch 2.9.\n" in text
    assert "Versions of interrupted (1), guidance ends (1): torch 2.10.\n" in text
    row = next(line for line in text.splitlines() if line.startswith("| FluxPipeline |"))
    assert [cell.strip() for cell in row.split("|")[2:6]] == ["**✗**", "**✗**", "✓", "✓"]


def test_tensors_of_any_output():
    output = {"a": [torch.ones(1), np.zeros(2)], "b": "text"}
    assert [tuple(tensor.shape) for tensor in tensors(output)] == [(1,), (2,)]
