from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecad import CacheSchedule, ScheduleError
from ecad.schedules import flux_sites, heuristics, importers, pixart_sites
from ecad.sites.names import Sites

SITES = pixart_sites(2)
BINS = '{"compute_bins": [2, 1], "cache_bins": [1, 1]}'
NAMED: Sites = tuple((f"layers.{i}", name) for i in (1, 11) for name in ("attn", "mlp"))


def columns(schedule: CacheSchedule) -> dict[tuple[str, str], str]:
    table = zip(schedule.sites, schedule.recompute.T, strict=True)
    return {site: "".join("#" if bit else "." for bit in column) for site, column in table}


def test_smoothcache_names_components_of_all_blocks() -> None:
    schedule = importers.from_smoothcache({"attn1": [1, 0, 0, 1], "ff": [1, 1, 0, 1]}, SITES)
    expected = {"attn1": "#..#", "attn2": "####", "ff": "##.#"}
    assert columns(schedule) == {(block, name): expected[name] for block, name in SITES}
    assert (schedule.name, schedule.attributes) == ("smoothcache", {"imported_from": "smoothcache"})


@pytest.mark.parametrize("order", [1, -1])
def test_smoothcache_a_blocks_own_key_goes_before_that_of_all(order: int) -> None:
    keys = {"attn": [1, 0, 0], "attn-1": [1, 1, 0], "mlp-0": [1, 0, 1]}
    schedule = importers.from_smoothcache(dict(list(keys.items())[::order]), SITES)
    assert list(columns(schedule).values()) == ["#..", "###", "#.#", "##.", "###", "###"]


def test_smoothcache_numbers_are_whole_numbers_of_module_paths() -> None:
    schedule = importers.from_smoothcache({"attn-1": [1, 0], "mlp-11": [1, 0]}, NAMED)
    assert list(columns(schedule).values()) == ["#.", "##", "##", "#."]


def test_smoothcache_names_as_they_are_go_before_their_translation() -> None:
    sites = (("layers.0", "attn"), ("layers.0", "attn1"))
    assert list(columns(importers.from_smoothcache({"attn": [1, 0]}, sites)).values()) == ["#.", "##"]


def test_smoothcache_single_blocks_have_numbers_of_their_own() -> None:
    schedule = importers.from_smoothcache({"single_attn-1": [1, 0]}, flux_sites(2, 2))
    assert [site for site, column in columns(schedule).items() if column == "#."] == [("single_1", "single_attn")]


@given(data=st.data(), steps=st.integers(1, 20), blocks=st.integers(1, 12))
def test_smoothcache_says_any_schedule_whose_first_step_computes(data: st.DataObject, steps: int, blocks: int) -> None:
    sites = pixart_sites(blocks)
    seed = data.draw(st.integers(0, 99))
    bits = np.random.default_rng(seed).random((steps, len(sites))) < 0.5
    bits[0] = True
    document = {f"{name}-{block}": column for (block, name), column in zip(sites, bits.T.astype(int).tolist())}  # noqa: B905
    assert np.array_equal(importers.from_smoothcache(document, sites).recompute, bits)


def test_a_step_mask_is_of_all_sites() -> None:
    expected = np.tile(np.array([True, True, False, True, False])[:, None], 6)
    for mask in ("11010", [1, 1, 0, 1, 0], (1, 1, 0, 1, 0), "01010"):
        assert np.array_equal(importers.from_step_mask(mask, SITES).recompute, expected)


@pytest.mark.parametrize(
    ("compute", "cache", "mask"),
    [
        ([8, 3, 3, 2, 1, 1], [1, 2, 2, 2, 3], "1111111101110011100110010001"),
        ([2, 1], [3, 1], "1100010"),
        ([3], [], "111"),
    ],
)
def test_bins_take_turns(compute: list[int], cache: list[int], mask: str) -> None:
    assert importers.from_bins(compute, cache, SITES) == importers.from_step_mask(mask, SITES)


@given(steps=st.integers(1, 40), n=st.integers(1, 8))
def test_listed_steps_compute(steps: int, n: int) -> None:
    every_n = heuristics.every_n(SITES, steps, n)
    listed = list(range(0, steps, n))
    assert np.array_equal(importers.from_steps(listed[::-1], SITES, steps).recompute, every_n.recompute)
    assert np.array_equal(importers.from_steps(listed[1:] or [0], SITES, steps).recompute, every_n.recompute)


@pytest.mark.parametrize(
    ("kind", "text", "made"),
    [
        ("step-mask", "11010\n", lambda: importers.from_step_mask("11010", SITES)),
        ("step-mask", "[1, 1, 0, 1, 0]", lambda: importers.from_step_mask("11010", SITES)),
        ("step-mask", BINS, lambda: importers.from_step_mask("11010", SITES)),
        ("steps", "0,3, 4", lambda: importers.from_steps([0, 3, 4], SITES, 5)),
        ("steps", "[0, 3, 4]", lambda: importers.from_steps([0, 3, 4], SITES, 5)),
        ("steps", "0", lambda: importers.from_steps([0], SITES, 5)),
        ("smoothcache", '{"ff": [1, 0, 1, 0, 1]}', lambda: importers.from_smoothcache({"ff": [1, 0, 1, 0, 1]}, SITES)),
    ],
)  # fmt: skip
def test_text_of_each_kind(kind: Any, text: str, made: Callable[[], CacheSchedule]) -> None:
    assert importers.from_text(kind, text, SITES, steps=5) == made()


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("smoothcache", "[]", 'not a SmoothCache schedule: expected JSON like {"attn": [1, 0, 1]'),
        ("smoothcache", "{}", "not a SmoothCache schedule"),
        ("smoothcache", "missing.json", "not smoothcache: expected JSON like "),
        ("smoothcache", '{"attn": [1], "attn": [1]}', "attn: the key appears twice"),
        ("smoothcache", '{"attn": 1}', "key attn: not a mask: expected 0 or 1 for each step, found 1"),
        ("smoothcache", '{"attn": []}', "key attn: not a mask: "),
        ("smoothcache", '{"attn": "101"}', "key attn: not a mask: "),
        ("smoothcache", '{"attn": [1, 2]}', "key attn: not a bit (step 001): expected 0 or 1, found 2"),
        ("smoothcache", '{"attn": [1, true]}', "found true"),
        ("smoothcache", '{"attn": [1, 0], "mlp": [1]}', "expected 2 steps, as attn has, found 1"),
        ("smoothcache", '{"norm1": [1]}', "none of the model's sites: expected attn1, attn2, ff, alone or"),
        ("smoothcache", '{"attn-2": [1]}', "key attn-2: none of the model's sites"),
        ("smoothcache", '{"attn-": [1]}', "key attn-: none of the model's sites"),
        ("step-mask", "", "not step-mask: expected zeros and ones like 1110100"),
        ("step-mask", "1201", "step mask: not a mask: expected 0 or 1 for each step, found 1201"),
        ("step-mask", "[1, -1]", "step mask: not a bit (step 001)"),
        ("step-mask", '{"compute_bins": [2]}', "step mask: not a mask"),
        ("step-mask", '{"compute_bins": [2, 0], "cache_bins": [1]}', "expected a list of numbers from 1"),
        ("step-mask", '{"compute_bins": [2], "cache_bins": 1}', "cache_bins: not lengths of runs"),
        ("step-mask", '{"compute_bins": [], "cache_bins": []}', "expected as many cache_bins, or one fewer"),
        ("step-mask", '{"compute_bins": [1], "cache_bins": [1, 1]}', "found 1 and 2"),
        ("step-mask", '{"compute_bins": [1], "cache_bins": [1000000000000]}', "expected at most 10000 steps"),
        ("steps", "0,9", "not one of the steps: expected a whole number from 0 to 8, found 9"),
        ("steps", "-1", "found -1"),
        ("steps", "0,,3", "not steps: expected step numbers like 0,3,6"),
        ("steps", "[0, 1.5]", "found 1.5"),
        ("steps", "{}", "not a list of steps"),
        ("steps", "[]", "not a list of steps"),
        ("csv", "1", "unknown notation: expected smoothcache, step-mask, steps, found csv"),
    ],
)  # fmt: skip
def test_refuses_in_one_line_and_says_what_was_expected(kind: Any, text: str, words: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        importers.from_text(kind, text, SITES, steps=9 if kind == "steps" else None)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_list_of_steps_needs_their_number_and_others_must_agree_with_it() -> None:
    with pytest.raises(ScheduleError, match="a list of steps needs the argument steps"):
        importers.from_text("steps", "0,3", SITES)
    with pytest.raises(ScheduleError, match="expected 4 steps, found 3 steps"):
        importers.from_text("step-mask", "110", SITES, steps=4)


keys = st.sampled_from(["attn", "ff-1", "compute_bins", "cache_bins", "x"])
documents = st.recursive(
    st.booleans() | st.integers(-2, 3) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


@given(
    text=st.text(max_size=12) | documents.map(json.dumps), kind=st.sampled_from(["smoothcache", "step-mask", "steps"])
)
def test_any_text_is_a_schedule_or_refused(kind: Any, text: str) -> None:
    refused = None
    try:
        schedule = importers.from_text(kind, text, SITES, steps=4 if kind == "steps" else None)
    except ScheduleError as error:
        refused = str(error)
    if refused is None:
        assert schedule.recompute[0].all()
        assert CacheSchedule.from_json(schedule.to_json()) == schedule
    else:
        assert refused.isprintable()
