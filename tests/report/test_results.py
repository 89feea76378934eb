from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from ecad.errors import EcadError
from ecad.report import Candidate, Entry, Generation, Interval, Picture, Results, save_images
from ecad.report.results import RESULTS_FILE
from ecad.schedules import CacheSchedule, heuristics, pixart_sites

FINITE = st.floats(allow_nan=False, allow_infinity=False)
# What `str.isprintable` is true of.
LINES = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" "), min_size=1)
COUNTS = st.integers(0, 2**60)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def everything(draw: st.DrawFn) -> Results:
    names = draw(st.lists(LINES, unique=True, max_size=3))
    pictures = draw(st.lists(st.builds(Picture, st.text(), st.integers(0, 2**63)), max_size=2))
    entries = [
        Entry(
            name=name,
            kind=draw(st.sampled_from(["baseline", "found"])),
            schedule=CacheSchedule(draw(st.lists(st.tuples(*[st.booleans()] * 3), min_size=1)), pixart_sites(1), name),
            macs=draw(st.integers(1, 2**60)),
            time_ratio=draw(st.none() | st.floats(1e-300, 1e300)),
            scores=draw(st.dictionaries(LINES, st.builds(Interval, FINITE, FINITE, FINITE), max_size=2)),
            search_quality=draw(st.none() | FINITE),
            images=tuple(f"images/{i}.png" for i in range(len(pictures))),
        )
        for name in names
    ]
    return Results(
        title=draw(LINES),
        generator=draw(LINES),
        pictures=pictures,
        entries=entries,
        quality_name=draw(LINES),
        candidates=draw(st.lists(st.builds(Candidate, COUNTS, COUNTS, FINITE), max_size=3)),
        history=draw(
            st.lists(st.builds(Generation, COUNTS, COUNTS, st.floats(0, 1e9), FINITE, COUNTS), max_size=3),
        ),
        settings=draw(st.dictionaries(st.text(), VALUES, max_size=3)),
    )


@settings(max_examples=40)
@given(everything())
def test_a_round_trip_loses_nothing(tmp_path_factory: pytest.TempPathFactory, results: Results) -> None:
    folder = tmp_path_factory.mktemp("results")
    results.save(folder)
    assert Results.load(folder) == results


def test_a_schedule_comes_back_as_its_own_file_would(tmp_path: Path, results: Results) -> None:
    results.save(tmp_path)
    for saved, entry in zip(Results.load(tmp_path).entries, results.entries, strict=True):
        assert saved.schedule.to_json() == entry.schedule.to_json()


@pytest.mark.parametrize("name", ["flux_default/default_1024x1024_gs_5.0_steps_08.json", "pixart_alpha_tgate"])
def test_published_schedules_survive(shared_data: Path, tmp_path: Path, results: Results, name: str) -> None:
    path = shared_data / "published-schedules" / name
    schedule = CacheSchedule.load(path if path.is_file() else min(path.glob("*.json")))
    replace(results, entries=(replace(results.entries[0], schedule=schedule),)).save(tmp_path)
    assert Results.load(tmp_path).entries[0].schedule.to_json() == schedule.to_json()


def test_missing_results_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(EcadError, match=r"nowhere/results\.json: cannot read the results of a search: No such file"):
        Results.load(tmp_path / "nowhere")


def damaged(document: dict, change: str) -> object:
    entry = document["entries"][0]
    match change:
        case "no list":
            document["entries"] = 3
        case "no count":
            entry["macs"] = "many"
        case "no kind":
            entry["kind"] = "lost"
        case "no mean":
            entry["scores"]["judge"]["mean"] = None
        case "unknown key":
            entry["colour"] = "red"
        case "escape":
            entry["name"] = "\x1b[2J"
        case "twice":
            document["entries"].append(entry)
        case "fewer images":
            entry["images"].pop()
        case "image elsewhere":
            entry["images"][0] = "../../etc/secret.png"
        case "absolute image":
            entry["images"][0] = "/etc/secret.png"
        case "image on a drive":
            entry["images"][0] = "C:secret.png"
        case "bit":
            entry["schedule"]["cache_schedule"]["schedule"]["001"]["1"]["ff"] = "yes"
        case "no schedule":
            entry["schedule"] = None
    return document


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("no list", r"entries: Input should be a valid array"),
        ("no count", r"entries\.0\.macs: Input should be a valid integer"),
        ("no kind", r"entries\.0\.kind: Input should be 'uncached', 'baseline' or 'found'"),
        ("no mean", r"entries\.0\.scores\.judge\.mean: Input should be a valid number"),
        ("unknown key", r"entries\.0\.colour: Unexpected keyword argument"),
        ("escape", r"entries\.0\.name: expected one line of printable text"),
        ("twice", r"entries: names must be unique"),
        ("fewer images", r"entry found-1: expected 2 images or none, found 1"),
        ("image elsewhere", r"entries\.0\.images\.0: expected a path inside the folder"),
        ("absolute image", r"entries\.0\.images\.0: expected a path inside the folder"),
        ("image on a drive", r"entries\.0\.images\.0: expected a path inside the folder"),
        ("bit", r"step 001, block 1, component ff"),
        ("no schedule", r"results\.json: .*object"),
    ],
)
def test_damage_is_one_line_with_its_place(tmp_path: Path, results: Results, change: str, says: str) -> None:
    results.save(tmp_path)
    file = tmp_path / RESULTS_FILE
    file.write_text(json.dumps(damaged(json.loads(file.read_text()), change)))
    with pytest.raises(EcadError, match=says) as raised:
        Results.load(tmp_path)
    assert str(raised.value).startswith(str(file))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_what_is_no_results_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RESULTS_FILE).write_bytes(content)
    with pytest.raises(EcadError, match=r"results\.json"):
        Results.load(tmp_path)


def test_every_beginning_of_the_file_is_refused(tmp_path: Path, results: Results) -> None:
    results.save(tmp_path)
    whole = (tmp_path / RESULTS_FILE).read_bytes()
    for length in range(0, len(whole.rstrip()), 97):
        (tmp_path / RESULTS_FILE).write_bytes(whole[:length])
        with pytest.raises(EcadError):
            Results.load(tmp_path)


def test_numbers_that_json_cannot_hold_never_get_in() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Interval(float("nan"), 0.0, 1.0)
    with pytest.raises(ValidationError, match="finite"):
        Candidate(0, 1, float("inf"))


def test_two_uncached_entries_are_refused(results: Results) -> None:
    with pytest.raises(ValidationError, match="at most one uncached"):
        replace(results, entries=(results.entries[1], replace(results.entries[1], name="another")))


def test_entries_are_shown_uncached_first_then_dearest_first(results: Results) -> None:
    dear = replace(results.entries[0], name="dear", macs=3_000_000_000)
    shown = replace(results, entries=(*results.entries, dear)).ordered()
    assert [entry.kind for entry in shown] == ["uncached", "baseline", "found", "found"]
    assert [entry.name for entry in shown[2:]] == ["dear", "found-1"]


def test_saved_images_are_the_pixels_they_were(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    paths = save_images(tmp_path, "../every 2", images)
    assert paths == tuple(f"images/%2E.%2Fevery%202/00{i}.png" for i in range(3))
    read = [np.asarray(Image.open(tmp_path / path)) for path in paths]
    np.testing.assert_array_equal(read, images)


def test_the_hand_made_schedules_keep_their_attributes(tmp_path: Path, results: Results) -> None:
    results.save(tmp_path)
    expected = heuristics.every_n(pixart_sites(2), 4, 2)
    assert Results.load(tmp_path).entries[2].schedule == expected
