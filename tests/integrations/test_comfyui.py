from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import comfyui
import numpy as np
import pytest
import torch
from comfyui import Denoiser, ModelPatcher, Sampling

from ecad import CacheSchedule, EcadError, ScheduleError
from ecad.integrations import comfyui as nodes
from ecad.integrations.comfyui.cached import cached_model
from ecad.integrations.comfyui.recording import recorded_model
from ecad.schedules.front import Front
from ecad.sites.names import DENOISER_SITES

SIGMAS = torch.cat([torch.linspace(14.6 ** (1 / 7), 0.03 ** (1 / 7), 20) ** 7, torch.zeros(1)])
NOISE = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
FOX, NONE, SNOW = (torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3))
EVERY_THIRD = list(range(0, 20, 3))


def schedule_of(computed: list[int], rows: int = 20, **rest: object) -> CacheSchedule:
    bits = np.zeros((rows, 1), dtype=bool)
    bits[computed] = True
    return CacheSchedule(bits, DENOISER_SITES, **rest)


def run(model: ModelPatcher, sigmas: torch.Tensor = SIGMAS, sampler: object = None, **how: object) -> torch.Tensor:
    how = {"positive": [FOX], "negative": [NONE]} | how
    return Sampling(model, **how).run(NOISE, sigmas, sampler)


@pytest.fixture
def model() -> ModelPatcher:
    return ModelPatcher(Denoiser())


@pytest.mark.parametrize("sampler", [comfyui.euler, comfyui.heun])
@pytest.mark.parametrize("how", [{}, {"cfg": 1.0}, {"apart": True}, {"with_ids": False}, {"positive": [FOX, SNOW]}])
def test_a_schedule_that_computes_everything_changes_no_bit(model: ModelPatcher, sampler: object, how: dict) -> None:
    patched = cached_model(model, schedule_of(list(range(20)), forecast=True))
    assert torch.equal(run(patched, sampler=sampler, **how), run(model, sampler=sampler, **how))


@pytest.mark.parametrize(
    "how", [{}, {"apart": True}, {"positive": [FOX, SNOW, NONE]}, {"with_ids": False}, {"cfg": 1.0}]
)
def test_only_the_rows_that_compute_call_the_model(model: ModelPatcher, how: dict) -> None:
    run(cached_model(model, schedule_of(EVERY_THIRD)), **how)
    called = [sigma for sigma, _ in model.model.calls]
    assert sorted(set(called), reverse=True) == SIGMAS[EVERY_THIRD].tolist()


def test_a_reused_output_is_the_last_one_of_its_own_conditioning(model: ModelPatcher) -> None:
    outputs: dict[int, torch.Tensor] = {}

    def last(x: torch.Tensor, t: torch.Tensor, c_crossattn: torch.Tensor, transformer_options: dict) -> torch.Tensor:
        halves = []
        for kind, part, context in zip((1, 0), x.chunk(2), c_crossattn.chunk(2), strict=True):
            level = t[: len(part)]
            if float(level[0]) in SIGMAS[EVERY_THIRD].tolist():
                denoised = model.model(part, level, context, transformer_options)
                outputs[kind] = (part - denoised) / level[0]
            halves.append(part - outputs[kind] * level[0])
        return torch.cat(halves)

    found = run(cached_model(model, schedule_of(EVERY_THIRD)))
    assert torch.allclose(found, run(ModelPatcher(last)), rtol=1e-5, atol=1e-5)


def test_conditionings_stay_apart_however_they_are_batched(model: ModelPatcher) -> None:
    patched = cached_model(model, schedule_of(EVERY_THIRD, forecast=True))
    together, apart = run(patched), run(patched, apart=True)
    assert torch.allclose(together, apart, rtol=1e-4, atol=1e-4)


def test_a_line_through_the_last_two_outputs() -> None:
    def row_number(x: torch.Tensor, t: torch.Tensor, **_: object) -> torch.Tensor:
        return x - t[0] * (SIGMAS - t[0]).abs().argmin()

    found = run(cached_model(ModelPatcher(row_number), schedule_of([*range(0, 20, 2)], forecast=True)), cfg=1.0)
    # Row 1 repeats the only output there is; from row 3 on, the line through two rows two apart meets the next.
    outputs = torch.tensor([0.0, 0.0, *range(2, 20)])
    assert torch.allclose(found, SIGMAS[0] * NOISE + (outputs * SIGMAS.diff()).sum(), atol=1e-4)


def test_output_weights_change_computed_outputs_too() -> None:
    def row_number(x: torch.Tensor, t: torch.Tensor, **_: object) -> torch.Tensor:
        return x - t[0] * (SIGMAS - t[0]).abs().argmin()

    weights = [(1.0,), (2.0, -1.0), *[(0.5, 1.0, 3.0)] * 18]
    schedule = schedule_of([0, 1, 2], forecast=True, output_weights=weights)
    found = run(cached_model(ModelPatcher(row_number), schedule), cfg=1.0)
    # Rows 0, 1, 2 gave 0, 1, 2; from row 2 on half the newest, its change, and three times the change before.
    outputs = torch.tensor([0.0, 2 * 1 - 1 * (1 - 0), *[0.5 * 2 + 1 * (2 - 1) + 3 * (1 - 0)] * 18])
    assert torch.allclose(found, SIGMAS[0] * NOISE + (outputs * SIGMAS.diff()).sum(), atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "flow_prediction", "v_prediction", "sample"])
def test_outputs_are_those_that_the_schedule_speaks_of(prediction: str) -> None:
    def of_row(x: torch.Tensor, t: torch.Tensor, **_: object) -> torch.Tensor:
        """As `calculate_denoised` of ComfyUI has it, of an output that is the row's number."""
        sigma, output = t[0], (SIGMAS - t[0]).abs().argmin()
        if prediction == "v_prediction":
            return x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5
        return x - x + output if prediction == "sample" else x - output * sigma

    model = ModelPatcher(of_row)
    exact = run(model, cfg=1.0)
    computed = [0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    schedule = schedule_of(computed, forecast=True, config={"prediction_type": prediction})
    # Row 2 is one step on from 0 and 1, row 4 half the line from 1 to 3: every line meets the next row.
    assert torch.allclose(run(cached_model(model, schedule), cfg=1.0), exact, rtol=1e-4, atol=1e-3)


def test_another_kind_of_output_is_refused(model: ModelPatcher) -> None:
    with pytest.raises(ScheduleError, match=r"config\.prediction_type: expected epsilon, .*, found 'x0'"):
        cached_model(model, schedule_of([0], config={"prediction_type": "x0"}))


def test_each_run_begins_anew_and_a_given_up_one_leaves_nothing(model: ModelPatcher) -> None:
    patched = cached_model(model, schedule_of(EVERY_THIRD))
    expected = run(patched)

    def gives_up(denoised: object, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        comfyui.euler(denoised, x, sigmas[:6])
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(patched, sampler=gives_up)
    calls = patched.model_options["model_function_wrapper"]
    assert calls._outputs == {}
    assert torch.equal(run(patched), expected)


def test_runs_are_told_apart_without_wrappers_around_them(model: ModelPatcher) -> None:
    patched = cached_model(model, schedule_of(EVERY_THIRD))
    expected = run(patched)
    patched.wrappers.clear()
    guider = Sampling(patched, [FOX], [NONE])
    assert torch.equal(guider.run(NOISE, SIGMAS), expected)
    assert not torch.equal(guider.run(2 * NOISE, SIGMAS), expected)
    assert torch.equal(guider.run(NOISE, SIGMAS), expected)


def test_the_model_before_the_node_has_no_trace(model: ModelPatcher) -> None:
    before = run(model)
    run(cached_model(model, schedule_of(EVERY_THIRD)))
    assert model.model_options == {"transformer_options": {}}
    assert model.wrappers == {}
    assert torch.equal(run(model), before)


def test_later_nodes_copy_the_model_and_another_wrapper_goes_on(model: ModelPatcher) -> None:
    seen: list[float] = []

    def other(apply_model: object, args: dict) -> torch.Tensor:
        seen.append(float(args["timestep"][0]))
        return apply_model(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(other)
    patched = cached_model(model, schedule_of(EVERY_THIRD))
    expected = run(patched)
    assert seen == SIGMAS[EVERY_THIRD].tolist()
    assert torch.equal(run(patched.clone().clone()), expected)


def test_a_second_schedule_replaces_the_first(model: ModelPatcher) -> None:
    twice = cached_model(cached_model(model, schedule_of([0])), schedule_of(list(range(20))))
    assert torch.equal(run(twice), run(model))
    assert len(twice.wrappers["outer_sample"]["ecad"]) == 1


def test_another_shape_in_the_middle_of_a_run_is_computed(model: ModelPatcher) -> None:
    def grows(denoised: object, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        comfyui.euler(denoised, x, sigmas[:5])
        return comfyui.euler(denoised, x.repeat(1, 1, 2, 2), sigmas[4:])

    run(cached_model(model, schedule_of([0, 1])), sampler=grows)
    assert [sigma for sigma, _ in model.model.calls] == SIGMAS[[0, 1, 4]].tolist()


def test_gradients_and_rising_noise_compute_everything(model: ModelPatcher, caplog: pytest.LogCaptureFixture) -> None:
    patched = cached_model(model, schedule_of([0]))
    run(patched, sigmas=SIGMAS[:-1].flip(0))
    assert len(model.model.calls) == 19
    assert "this run computes everything: not the noise levels of a run" in caplog.text
    with torch.inference_mode(False), torch.enable_grad():
        Sampling(patched, [FOX], [NONE])._outer_sample(NOISE, torch.zeros_like(NOISE), comfyui.euler, SIGMAS)
    assert len(model.model.calls) == 19 + 20


def test_a_recorded_run_is_the_same_and_gives_a_front(model: ModelPatcher, tmp_path: Path) -> None:
    file = tmp_path / "models" / "tiny.json"
    recorded = recorded_model(model, file)
    assert torch.equal(run(recorded), run(model))
    front = Front.load(file)
    assert len(front.points) == 20
    assert dict(front.provenance)["images"] == 2
    assert front.schedules[0].config["sigmas"] == tuple(SIGMAS[:-1].double().tolist())
    assert all(a.quality <= b.quality + 1e-9 for a, b in pairwise(front.points))
    model.model.calls.clear()
    close = run(cached_model(model, front.pick(speedup=2.0)))
    assert len(model.model.calls) == 10
    repeated = run(cached_model(model, schedule_of(list(range(0, 20, 2)))))
    exact = run(model)
    assert (close - exact).square().mean() < 0.1 * (repeated - exact).square().mean()


def test_recording_again_averages_over_all_images(model: ModelPatcher, tmp_path: Path) -> None:
    once, twice = tmp_path / "once.json", tmp_path / "twice.json"
    for positive in (FOX, SNOW):
        run(recorded_model(model, once), positive=[positive])
        run(recorded_model(model, tmp_path / f"{float(positive[0, 0, 0])}.json"), positive=[positive])
    alone = [Front.load(file).schedules[0].output_products for file in tmp_path.glob("*.json") if file != once]
    both = Front.load(once)
    assert both.schedules[0].output_products == pytest.approx((alone[0] + alone[1]) / 2)
    assert both.provenance["images"] == 4
    assert not twice.exists()


def test_recording_at_other_noise_levels_is_refused_before_anything_runs(model: ModelPatcher, tmp_path: Path) -> None:
    recorded = recorded_model(model, tmp_path / "tiny.json")
    run(recorded)
    model.model.calls.clear()
    with pytest.raises(EcadError, match=r"tiny\.json: recorded at 20 other noise levels than this run's 10"):
        run(recorded, sigmas=SIGMAS[::2])
    assert model.model.calls == []


def test_a_cached_model_cannot_be_recorded(model: ModelPatcher, tmp_path: Path) -> None:
    with pytest.raises(EcadError, match="runs under a cache schedule"):
        recorded_model(cached_model(model, schedule_of([0])), tmp_path / "tiny.json")


def test_malformed_noise_levels_are_refused_at_the_node(model: ModelPatcher) -> None:
    with pytest.raises(ScheduleError, match=r"config\.sigmas"):
        cached_model(model, schedule_of([0], config={"sigmas": [1.0]}))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's module of folders, as it is."""
    paths = ModuleType("folder_paths")
    known: dict[str, list[str]] = {}

    def add_model_folder_path(folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
        known.setdefault(folder_name, [])
        if full_folder_path not in known[folder_name]:
            known[folder_name].append(full_folder_path)

    def get_full_path_or_raise(folder_name: str, filename: str) -> str:
        return str(Path(known[folder_name][0]) / filename)

    paths.models_dir = str(tmp_path)
    paths.add_model_folder_path = add_model_folder_path
    paths.get_folder_paths = lambda folder_name: list(known[folder_name])
    paths.get_filename_list = lambda folder_name: sorted(file.name for file in Path(known[folder_name][0]).iterdir())
    paths.get_full_path_or_raise = get_full_path_or_raise
    monkeypatch.setitem(sys.modules, "folder_paths", paths)
    return tmp_path / "ecad"


def test_the_nodes_record_and_apply(model: ModelPatcher, folder: Path) -> None:
    apply, record = (nodes.NODE_CLASS_MAPPINGS[f"Ecad{name}"] for name in ("CacheSchedule", "RecordCacheSchedules"))
    assert apply.INPUT_TYPES()["required"]["schedule"][0] == []
    (recorded,) = getattr(record(), record.FUNCTION)(model=model, name="tiny")
    run(recorded)
    assert apply.INPUT_TYPES()["required"]["schedule"][0] == ["tiny.json"]
    model.model.calls.clear()
    (patched,) = getattr(apply(), apply.FUNCTION)(model=model, schedule="tiny.json", speedup=4.0)
    run(patched)
    assert len(model.model.calls) == 5
    first = apply.IS_CHANGED(schedule="tiny.json", model=None, speedup=4.0)
    assert first == (folder / "tiny.json").stat().st_mtime


@pytest.mark.parametrize("name", ["", "../up", "a/b", "/etc", ".hidden", "a\n"])
def test_a_name_that_leads_elsewhere_is_refused(model: ModelPatcher, folder: Path, name: str) -> None:
    with pytest.raises(EcadError, match="no name for a file"):
        nodes.NODE_CLASS_MAPPINGS["EcadRecordCacheSchedules"]().record(model, name)


@pytest.mark.parametrize("file", sorted(Path(nodes.__file__).parent.glob("example_workflows/*.json")))
def test_an_example_workflow_is_whole(file: Path, folder: Path) -> None:
    workflow = json.loads(file.read_text())
    by_id = {node["id"]: node for node in workflow["nodes"]}
    for link, source, out, target, into, kind in workflow["links"]:
        assert link in by_id[source]["outputs"][out]["links"]
        assert by_id[target]["inputs"][into] == {**by_id[target]["inputs"][into], "link": link, "type": kind}
    ours = [node for node in workflow["nodes"] if node["type"].startswith("Ecad")]
    assert ours
    for node in ours:
        required = nodes.NODE_CLASS_MAPPINGS[node["type"]].INPUT_TYPES()["required"]
        assert [name for name, (kind, *_) in required.items() if kind == "MODEL"] == ["model"]
        assert len(node["widgets_values"]) == len(required) - 1


def test_the_folder_is_a_custom_node() -> None:
    place = Path(nodes.__file__).parent
    assert set(nodes.NODE_DISPLAY_NAME_MAPPINGS) == set(nodes.NODE_CLASS_MAPPINGS)
    told = (place / "pyproject.toml").read_text()
    assert all(part in told for part in ("[project]", "[tool.comfy]", "PublisherId", "DisplayName"))
    assert (place / "requirements.txt").read_text().split() == ["ecad"]
