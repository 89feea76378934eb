"""The rivals of `benchmarks/peers.py`: nothing stays behind, caching off is uncached, and the meter tells the truth."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ecad import builtin
from ecad.cost.macs import macs_table
from ecad.genetic.evaluation.problems import problem_of
from ecad.image_generators import get_image_generator
from ecad.runtime.cache import cached
from ecad.schedules import heuristics
from ecad.schedules.front import Front, Point

DOCS = Path(__file__).parents[2] / "docs"
# The page of each file of numbers.
PAGES = {
    "comparison.json": "comparison-tables.md",
    "comparison-flux.json": "comparison-tables-flux.md",
    "comparison-calibrate.json": "comparison-tables-calibrate.md",
    "comparison-calibrate-flux.json": "comparison-tables-calibrate-flux.md",
}
MODULES = (
    "setting",
    "schedules",
    "in_diffusers",
    "in_cache_dit",
    "smooth_cache",
    "dp_cache",
    "tea_cache",
    "easy_cache",
    "spectrum",
    "samplers",
    "measure",
    "figures",
    "markdown",
)
STEPS = 5
PROMPTS = builtin.prompts("search")[:2]


@pytest.fixture(scope="module")
def rivals():  # type: ignore[no-untyped-def]
    try:
        return SimpleNamespace(**{name: importlib.import_module(f"rivals.{name}") for name in MODULES})
    except ImportError as error:
        pytest.skip(f"the installed diffusers lacks a rival: {error}")


@pytest.fixture(scope="module")
def generator():  # type: ignore[no-untyped-def]
    return replace(get_image_generator("EmojiImageGenerator", device="cpu"), steps=STEPS)


@pytest.fixture(scope="module")
def calibration(rivals, generator):  # type: ignore[no-untyped-def]
    return rivals.setting.Calibration(generator, tuple(PROMPTS), STEPS)


@pytest.fixture(scope="module")
def uncached(rivals, generator):  # type: ignore[no-untyped-def]
    return make(rivals, generator, rivals.setting.Setting("uncached", ""))


def make(rivals, generator, setting):  # type: ignore[no-untyped-def]
    return rivals.measure.make_batch(generator, setting, PROMPTS, [3, 4], STEPS, memory=False)


def state(pipe):  # type: ignore[no-untyped-def]
    """What a rival could leave behind: classes, attributes and hooks of every part, and the pipeline's own methods."""
    parts = [pipe, pipe.scheduler, *pipe.transformer.modules()]
    volatile = ("_num_timesteps", "_guidance_scale", "_interrupt")
    names = [
        (type(part), sorted(name for name in vars(part) if name not in volatile), vars(part).get("forward"))
        for part in parts
    ]
    hooks = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), id(m.forward.__func__)) for m in pipe.transformer.modules()
    ]
    return names, hooks, type(pipe).__call__


def rivals_that_patch(rivals, calibration):  # type: ignore[no-untyped-def]
    found = [
        *rivals.in_diffusers.all_of_diffusers(calibration),
        *rivals.in_cache_dit.all_of_cache_dit(calibration),
        *rivals.dp_cache.all_of_dp_cache(calibration),
        *rivals.easy_cache.all_of_easy_cache(calibration),
        *rivals.samplers.all_of_samplers(calibration),
        rivals.setting.Setting("TeaCache", "", applied=lambda pipe: rivals.tea_cache.reuse_residual(9.0, [1, 0], pipe)),
        rivals.setting.Setting(
            "Spectrum", "", applied=lambda pipe: rivals.spectrum.forecast_by_polynomials([0, 1], 0.5, pipe)
        ),
    ]
    kinds = {setting.rival: setting for setting in found if setting.unusable is None}
    return list(kinds.values())


def test_every_rival_leaves_the_pipeline_as_it_was_also_when_it_fails(rivals, generator, calibration, uncached) -> None:  # type: ignore[no-untyped-def]
    settings = rivals_that_patch(rivals, calibration)
    before = state(generator.pipe)
    assert len(settings) >= 7
    for setting in settings:
        found = make(rivals, generator, setting)
        assert state(generator.pipe) == before, setting.key
        assert found["macs"] < uncached["macs"] or "PAB" in setting.rival, setting.key
        with pytest.raises(KeyboardInterrupt), setting.applied(generator.pipe):
            raise KeyboardInterrupt
        assert state(generator.pipe) == before, setting.key
    again = make(rivals, generator, rivals.setting.Setting("uncached", ""))
    assert (again["images"] == uncached["images"]).all()


OFF = {
    "pab": {"spatial_attention_block_skip_range": 1},
    "first_block": {"threshold": 0.0},
    "taylor": {"cache_interval": 1, "cache_identifiers": [r"transformer_blocks\.\d+\.ff"]},
    "magnitude": {"threshold": -1.0, "mag_ratios": [1.0] * STEPS, "num_inference_steps": STEPS},
    "sea": {"threshold": 0.0},
}


@pytest.mark.parametrize("name", OFF)
def test_a_cache_of_diffusers_that_never_reuses_is_uncached(name, rivals, generator, uncached) -> None:  # type: ignore[no-untyped-def]
    config = getattr(rivals.in_diffusers, name)
    setting = rivals.setting.Setting(
        name,
        "off",
        applied=lambda pipe: rivals.in_diffusers.diffusers_cache(lambda loop: config(OFF[name], loop), pipe),
    )
    found = make(rivals, generator, setting)
    assert (found["images"] == uncached["images"]).all()
    assert found["macs"] == uncached["macs"]


def test_cache_dit_that_never_reuses_is_uncached(rivals, generator, uncached) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("cache_dit", reason="cache-dit is not installed: pip install -e '.[peers]'")
    given = {"Fn_compute_blocks": 1, "Bn_compute_blocks": 0, "max_warmup_steps": 1, "residual_diff_threshold": 0.0}
    setting = rivals.setting.Setting("off", "", applied=lambda pipe: rivals.in_cache_dit.dual_block(given, 0, pipe))
    found = make(rivals, generator, setting)
    assert (found["images"] == uncached["images"]).all()
    assert found["macs"] == uncached["macs"]


def test_without_cache_dit_the_table_says_why(rivals, calibration, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    [setting] = rivals.in_cache_dit.all_of_cache_dit(calibration)
    assert "not installed" in setting.unusable


def test_dp_cache_with_every_step_a_key_step_is_uncached(rivals, generator, uncached) -> None:  # type: ignore[no-untyped-def]
    keys = list(range(STEPS))
    setting = rivals.setting.Setting("off", "", applied=lambda pipe: rivals.dp_cache.forecast_between(keys, 1, pipe))
    found = make(rivals, generator, setting)
    assert (found["images"] == uncached["images"]).all()


def test_the_meter_counts_what_the_cost_table_says(rivals, generator, uncached) -> None:  # type: ignore[no-untyped-def]
    problem = problem_of(generator)
    # The pipeline pads texts to 32 tokens; the generator's architecture states its longest prompt.
    table = macs_table(replace(generator.architecture, text_tokens=32))
    assert uncached["macs"] == table.price(problem.template.recompute)
    # Cross-attention computes: in a row that reuses it, too, the runtime leaves out the captions' projection.
    every_2 = heuristics.every_n(problem.template.sites, STEPS, 2, components=("attn1", "ff"))
    setting = rivals.setting.Setting("every 2", "", applied=lambda pipe: cached(pipe, every_2))
    assert make(rivals, generator, setting)["macs"] == table.price(every_2.recompute)


def test_a_schedule_that_forecasts_is_another_setting_than_one_that_repeats(rivals, generator) -> None:  # type: ignore[no-untyped-def]
    every_2 = heuristics.every_n(problem_of(generator).template.sites, STEPS, 2)
    forecasting = every_2.replace(forecast=True)
    keys = {
        rivals.setting.of_schedule("ecad fast", "every 2", schedule, {}).key
        for schedule in (
            every_2,
            forecasting,
            forecasting.replace(output_products=np.eye(STEPS)),
            forecasting.replace(output_products=np.eye(STEPS), output_weights=[[1.0]] * STEPS),
        )
    }
    assert len(keys) == 4


def test_fronts_of_one_method_are_told_apart(rivals, generator) -> None:  # type: ignore[no-untyped-def]
    problem = problem_of(generator)
    points = [Point(heuristics.every_n(problem.template.sites, STEPS, n), 1 / n, 40.0 - n) for n in (2, 3)]
    fronts = [Front("one", points, provenance={"method": "calibrate"}), Front("two", points[:1])]
    fronts += [Front("three", points, provenance={"method": "calibrate"})]
    settings = rivals.schedules.of_fronts(fronts, problem)
    assert [setting.rival for setting in settings] == [
        *["ecad calibrate"] * 2,
        "ecad optimize",
        *["ecad calibrate, study 1"] * 2,
    ]
    assert len({setting.key for setting in settings}) == 5


def never_reusing(rivals) -> dict:  # type: ignore[no-untyped-def]
    steps = list(range(STEPS))
    return {
        "TeaCache": lambda pipe: rivals.tea_cache.reuse_residual(0.0, [1.0, 0.0], pipe),
        "EasyCache": lambda pipe: rivals.easy_cache.easy_cache(0.0, 2, True, pipe),
        "LazyCache": lambda pipe: rivals.easy_cache.lazy_cache(0.0, 2, True, pipe),
        "Spectrum": lambda pipe: rivals.spectrum.forecast_by_polynomials(steps, 0.5, pipe),
        "GITS": lambda pipe: rivals.samplers.only_steps(steps, pipe),
    }


@pytest.mark.parametrize("name", ["TeaCache", "EasyCache", "LazyCache", "Spectrum", "GITS"])
def test_a_reimplemented_rival_that_computes_every_step_is_uncached(name, rivals, generator, uncached) -> None:  # type: ignore[no-untyped-def]
    setting = rivals.setting.Setting(name, "off", applied=never_reusing(rivals)[name])
    found = make(rivals, generator, setting)
    assert (found["images"] == uncached["images"]).all()
    assert found["macs"] >= uncached["macs"]


@pytest.mark.parametrize("name", ["EasyCache", "LazyCache"])
def test_a_rival_that_reuses_whenever_it_may_runs_in_its_warm_up_and_at_the_end(  # type: ignore[no-untyped-def]
    name, rivals, generator, uncached
) -> None:
    applied = {"EasyCache": rivals.easy_cache.easy_cache, "LazyCache": rivals.easy_cache.lazy_cache}[name]
    setting = rivals.setting.Setting(name, "on", applied=lambda pipe: applied(1e9, 2, True, pipe))
    found = make(rivals, generator, setting)
    assert found["macs"] == uncached["macs"] * 3 / STEPS
    assert (found["images"] != uncached["images"]).any()


def test_the_change_of_an_output_is_predicted_by_the_last_ratio(rivals) -> None:  # type: ignore[no-untyped-def]
    def at(value: float) -> torch.Tensor:
        return torch.full((2, 3), value)

    for every_step, sums in ((True, [0.2, 0.4]), (False, [0.2, 0.6])):
        change = rivals.easy_cache.Change(0.7, every_step)
        change.update(at(0.0), at(6.0))
        change.update(at(1.0), at(10.0))
        assert change.ratio == 4.0
        for now, expected in zip((1.5, 2.0), sums, strict=True):
            assert change.is_small(at(now))
            assert change.sum == pytest.approx(expected)
        assert not change.is_small(at(9.0))
        assert change.sum == 0.0


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon", "FlowMatch"])
def test_a_prediction_and_the_latents_that_it_stands_for_are_two_forms_of_one_thing(kind, rivals) -> None:  # type: ignore[no-untyped-def]
    flow = kind == "FlowMatch"
    classes = type("FlowMatchScheduler" if flow else "Scheduler", (SimpleNamespace,), {})
    scheduler = classes(sigmas=[0.75], step_index=None, config={} if flow else {"prediction_type": kind})
    scale = rivals.easy_cache
    clean, noise = torch.randn(2, 4, 4), torch.randn(2, 4, 4)
    alpha, sigma = scale.scales(scheduler)
    noisy = clean + sigma * noise
    if flow:
        noisy = (1 - sigma) * clean + sigma * noise
    prediction = {
        "v_prediction": alpha * noise - sigma * alpha * clean,
        "epsilon": noise,
        "FlowMatch": noise - clean,
    }[kind]
    torch.testing.assert_close(scale.denoised_latents(scheduler, noisy, prediction), clean)
    torch.testing.assert_close(scale.prediction_of(scheduler, noisy, clean), prediction)


def test_the_polynomial_that_forecasts_reproduces_a_line_and_the_weights_of_a_fit(rivals) -> None:  # type: ignore[no-untyped-def]
    computed, step, steps = [0, 1, 2, 4, 7], 9, 20
    weights = rivals.spectrum.forecast_weights(computed, step, steps, 1.0)
    times = np.array(computed) * 2 / steps - 1
    values = np.random.default_rng(0).normal(size=len(computed))
    # The slow obvious version: augmented least squares.
    design = np.polynomial.chebyshev.chebvander(times, 4)
    rows = np.vstack([design, np.sqrt(0.1) * np.eye(5)])
    coefficients = np.linalg.lstsq(rows, np.concatenate([values, np.zeros(5)]), rcond=None)[0]
    expected = np.polynomial.chebyshev.chebval(step * 2 / steps - 1, coefficients)
    assert weights @ values == pytest.approx(expected)
    assert rivals.spectrum.forecast_weights(computed, step, steps, 0.0) @ np.array(computed) == pytest.approx(step)


def test_steps_are_placed_as_exhaustive_search_places_them(rivals) -> None:  # type: ignore[no-untyped-def]
    steps, count = 7, 4
    errors = np.random.default_rng(3).random((steps, steps + 1))
    errors[np.tril_indices(steps, 0, steps + 1)] = np.inf

    def cost(places: tuple[int, ...], growth: float) -> float:
        total = 0.0
        for here, there in itertools.pairwise((*places, steps)):
            total = growth * total + errors[here, there]
        return total

    for growth in (1.0, 1.15):
        paths = [(0, *rest) for rest in itertools.combinations(range(1, steps), count - 1)]
        found = tuple(rivals.samplers.placed_steps(errors, count, growth))
        assert found == min(paths, key=lambda path: cost(path, growth))


@pytest.mark.parametrize("order", [0, 1])
def test_key_steps_are_those_of_exhaustive_search(order, rivals) -> None:  # type: ignore[no-untyped-def]
    steps, count = 7, 4
    features = torch.from_numpy(np.random.default_rng(order).normal(size=(steps, 30)).cumsum(axis=0))
    costs = rivals.dp_cache.path_costs(features, order)

    def cost(keys: tuple[int, ...]) -> float:
        path = (*keys, steps)
        return sum(costs[i, j, k] for i, j, k in zip(path, path[1:], path[2:], strict=False))

    paths = [(0, 1, *rest) for rest in itertools.combinations(range(2, steps), count - 2)]
    found = tuple(rivals.dp_cache.key_steps(costs, count))
    assert found in paths
    assert cost(found) == pytest.approx(min(map(cost, paths)))


def test_a_level_is_won_only_outside_of_the_interval(rivals) -> None:  # type: ignore[no-untyped-def]
    def row(rival: str, cost: float, mean: float) -> dict:
        scores = {"psnr": {"mean": mean}, "judge": {"mean": mean}}
        return {"key": f"{rival} {cost}", "rival": rival, "cost": cost, "scores": scores}

    rows = [
        row("ecad fast", 0.49, 30.0),
        row("a", 0.5, 29.0),
        row("b", 0.5, 29.9),
        row("c", 0.5, 31.0),
        row("d", 0.9, 50.0),
    ]
    noise = np.array([-1.0, 1.0, -1.0, 1.0])
    values = {r["key"]: {s: r["scores"][s]["mean"] + 0 * noise for s in ("psnr", "judge")} for r in rows}
    values["b 0.5"]["psnr"] = 29.9 + noise
    found = rivals.figures.verdicts(rows, values)
    at_2 = {e["rival"]: e["verdict"] for e in found if e["score"] == "psnr" and e["level"] == 2.0}
    assert at_2 == {"a": "above", "b": "level", "c": "below", "d": "does not go there"}


def test_each_study_stands_against_the_best_rival_by_itself(rivals) -> None:  # type: ignore[no-untyped-def]
    def row(rival: str, cost: float, mean: float) -> dict:
        return {"key": f"{rival} {cost}", "rival": rival, "cost": cost, "scores": {"psnr": {"mean": mean}}}

    rows = [row("ecad fast", 0.5, 30.0), row("ecad fast, study 1", 0.5, 28.0), row("a", 0.5, 29.0), row("b", 0.5, 27.0)]
    values = {r["key"]: {"psnr": r["scores"]["psnr"]["mean"] + np.zeros(4)} for r in rows}
    found = rivals.figures.leads_by_study(rows, values, "psnr")
    assert found["ecad fast"][2.0] == {"rival": "a", "lead": 1.0, "low": 1.0, "high": 1.0, "verdict": "above"}
    assert found["ecad fast, study 1"][2.0]["verdict"] == "below"
    assert 4.0 not in found["ecad fast"]
    assert rivals.figures.is_first(rows[0]["rival"])
    assert not rivals.figures.is_first(rows[1]["rival"])


def test_of_distances_the_less_is_the_better(rivals) -> None:  # type: ignore[no-untyped-def]
    figures = rivals.figures

    def row(rival: str, cost: float, distance: float) -> dict:
        scores = {"lpips": {"mean": distance}}
        return {"key": f"{rival} {cost} {distance}", "rival": rival, "cost": cost, "scores": scores}

    rows = [row("ecad fast", 0.5, 0.1), row("ecad fast", 0.45, 0.3), row("a", 0.5, 0.2), row("b", 0.5, 0.05)]
    values = {r["key"]: {"lpips": np.full(4, r["scores"]["lpips"]["mean"])} for r in rows}
    assert figures.compared(rows) == ["lpips"]
    at_2 = {e["rival"]: (e["lead"], e["verdict"]) for e in figures.verdicts(rows, values) if e["level"] == 2.0}
    assert at_2 == {"a": (pytest.approx(0.1), "above"), "b": (pytest.approx(-0.05), "below")}
    area = figures.areas(rows, {"lpips": 1.0})
    assert area["b"]["lpips"] > area["a"]["lpips"] > 0
    assert area["ecad fast"]["lpips"] == pytest.approx((1 - 0.5 / 0.8) * 0.9 + 0.05 / 0.8 * 0.7)


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


def pages(rivals) -> dict[str, str]:  # type: ignore[no-untyped-def]
    return {
        page: rivals.markdown.page(json.loads((DOCS / numbers).read_text(encoding="utf-8")))
        for numbers, page in PAGES.items()
    }


def test_the_documents_have_the_tables_of_their_numbers(rivals) -> None:  # type: ignore[no-untyped-def]
    for name, page in pages(rivals).items():
        assert (DOCS / name).read_text(encoding="utf-8") == page


def test_what_the_comparison_quotes_of_twenty_steps_is_in_them(rivals) -> None:  # type: ignore[no-untyped-def]
    known = {line for page in pages(rivals).values() for line in page.splitlines()}
    _, _, appendix = (DOCS / "comparison.md").read_text(encoding="utf-8").partition("## Appendix")
    text, _, _ = appendix.partition("## Eight steps")
    quoted = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    assert len(quoted) > 40
    assert not [line for line in quoted if line not in known]


def test_leads_in_the_summary_of_the_comparison_are_those_of_its_appendix() -> None:
    summary, _, appendix = (DOCS / "comparison.md").read_text(encoding="utf-8").partition("## Appendix")
    leads = re.findall(r"([^\s(]+) (\[\S+, \S+\])", summary)
    assert len(leads) > 15
    written = ("{} {}", "{} dB {}", "{} dB better {}")
    missing = [lead for lead in leads if not any(form.format(*lead) in appendix for form in written)]
    assert not missing


def test_a_table_says_who_is_level_and_who_is_above(rivals) -> None:  # type: ignore[no-untyped-def]
    def row(rival: str, cost: float, mean: float) -> dict:
        scores = {"psnr": {"mean": mean, "low": mean - 1, "high": mean + 1}}
        return {"key": f"{rival} {cost}", "rival": rival, "cost": cost, "speed_up": 0.9 / cost, "scores": scores}

    rows = [row("ecad fast", 0.5, 30.0), row("a", 0.5, 31.0), row("b", 0.4, 29.0), row("c", 0.5, 20.0)]
    verdict = {"a": "below", "b": "level", "c": "above"}
    entries = [{"rival": rival, "level": 1.5, "score": "psnr", "verdict": found} for rival, found in verdict.items()]
    areas = {"ecad fast": {"psnr": 3.0}, "a": {"psnr": 2.0}, "b": {"psnr": 2.5}, "c": {"psnr": 1.0}}
    costs = ("MACs", "time")
    result = {"rows": rows, "verdicts": dict.fromkeys(costs, entries), "hypervolume": dict.fromkeys(costs, areas)}
    assert rivals.markdown.level_table(result, "psnr").splitlines()[2:] == [
        "| ecad fast | 30.0 [29.0, 31.0] | 30.0 [29.0, 31.0] | – | – | – | – | 3.00 |",
        "| b | 29.0 [28.0, 30.0] (=) | 29.0 [28.0, 30.0] | 29.0 [28.0, 30.0] | – | – | – | 2.50 |",
        "| a | 31.0 [30.0, 32.0] ↓ | 31.0 [30.0, 32.0] | – | – | – | – | 2.00 |",
        "| c | 20.0 [19.0, 21.0] | 20.0 [19.0, 21.0] | – | – | – | – | 1.00 |",
    ]
    assert "| a | 31.0 [30.0, 32.0] ↓ | – | – |" in rivals.markdown.level_table(result, "psnr", "time")
