"""Malformed files are refused: where, what was expected, what was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecad import CacheSchedule, ScheduleError

Document = dict[str, Any]
Content = bytes | Callable[[str], bytes]


def cells(document: Document, step: str) -> Document:
    return document["cache_schedule"]["schedule"][step]


def refusal(document: object) -> ScheduleError:
    with pytest.raises(ScheduleError) as caught:
        CacheSchedule.from_json(document)
    return caught.value


def put(value: object, *path: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        *parents, last = path
        for key in parents:
            document = document[key]
        document[last] = value

    return change


def drop(*path: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        *parents, last = path
        for key in parents:
            document = document[key]
        del document[last]

    return change


TABLE = ("cache_schedule",)
STEPS = ("cache_schedule", "schedule")
CELL = (*STEPS, "001", "1", "attn2")
AT_CELL = {"step": "001", "block": "1", "component": "attn2"}
CUSTOM = (*STEPS, "001", "1", "custom_compute_attn")


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        (put(1, *CELL), AT_CELL, "expected true (recompute) or false (reuse), found 1"),
        (put("true", *CELL), AT_CELL, 'found "true"'),
        (put(None, *CELL), AT_CELL, "found null"),
        (put(1.0, *CELL), AT_CELL, "found 1.0"),
        (put([True], *CELL), AT_CELL, "found [true]"),
        (put({"name": "x", "kwargs": {}}, *CELL), AT_CELL, 'found {"name": "x", "kwargs": {}}'),
        (
            drop(*CELL),
            AT_CELL,
            "the component is missing (step 001, block 1, component attn2): expected attn1, attn2, ff, found attn1, ff",
        ),
        (
            put(True, *STEPS, "000", "0", "attn3"),
            {"step": "000", "block": "0", "component": "attn3"},
            "not a component of this block (step 000, block 0, component attn3): "
            "expected attn1, attn2, ff, found attn1, attn2, ff, attn3",
        ),
        (put({}, *STEPS, "001", "1"), {"step": "001", "block": "1", "component": "attn1"}, "found none"),
        (put(True, *STEPS, "001", "1"), {"step": "001", "block": "1"}, "expected an object, found true"),
        (
            drop(*STEPS, "000", "0"),
            {"step": "000", "block": "0"},
            "the block is missing (step 000, block 0): expected 2 blocks (0 to 1), found 1 block",
        ),
        (put({}, *STEPS, "001", "2"), {"step": "001", "block": "2"}, "not a block of this schedule"),
        (put({}, *STEPS, "001", "01"), {"step": "001", "block": "01"}, "not a block of this schedule"),
        (put([], *STEPS, "001"), {"step": "001"}, "expected an object, found []"),
        (drop(*STEPS, "000"), {"step": "000"}, "missing (step 000): expected 2 steps (num_inference_steps) from 000"),
        (drop(*STEPS, "001"), {"step": "001"}, "found 1 step"),
        (put({}, *STEPS, "2"), {"step": "2"}, "not a step's key (step 2): expected 000 to 002, found 3 steps"),
        (put({}, *STEPS, "003"), {"step": "003"}, "not a step's key"),
        (put({}, *STEPS, "٠٠٢"), {"step": "٠٠٢"}, "not a step's key"),
        (put({}, *STEPS), {"step": "000"}, "found 0 steps"),
        (put([], *STEPS), {}, "cache_schedule.schedule: wrong type of value: expected an object, found []"),
        (drop(*STEPS), {}, "cache_schedule.schedule: missing: expected a value, found nothing"),
        (put(3, *TABLE, "num_inference_steps"), {"step": "002"}, "expected 3 steps"),
        (put(10**15, *TABLE, "num_inference_steps"), {}, "less than or equal to 99999, found 1000000000000000"),
        (put(0, *TABLE, "num_inference_steps"), {}, "cache_schedule.num_inference_steps"),
        (put(-1, *TABLE, "num_inference_steps"), {}, "found -1"),
        (put(2.0, *TABLE, "num_inference_steps"), {}, "expected a valid integer, found 2.0"),
        (put(True, *TABLE, "num_inference_steps"), {}, "expected a valid integer, found true"),
        (drop(*TABLE, "num_inference_steps"), {}, "cache_schedule.num_inference_steps: missing"),
        (put(3, *TABLE, "num_blocks"), {"step": "000", "block": "2"}, "expected 3 blocks (0 to 2), found 2 blocks"),
        (put(1, *TABLE, "num_blocks"), {"step": "000", "block": "1"}, "expected 1 block (0 to 0), found 2 blocks"),
        (put(0, *TABLE, "num_blocks"), {"step": "000", "block": "0"}, "expected no blocks, found 2 blocks"),
        (put("2", *TABLE, "num_blocks"), {}, "cache_schedule.num_blocks: wrong type of value: expected a valid int"),
        (drop(*TABLE, "num_blocks"), {}, "cache_schedule.num_blocks: missing"),
        (put(1, *TABLE, "num_single_blocks"), {"step": "000", "block": "single_0"}, "the block is missing"),
        (put(None, *TABLE, "num_single_blocks"), {}, "cache_schedule.num_single_blocks"),
        (put(3, *TABLE, "name"), {}, "cache_schedule.name: wrong type of value: expected a valid string, found 3"),
        (put("a\nb", *TABLE, "name"), {}, "expected one line of text"),
        (drop(*TABLE, "name"), {}, "cache_schedule.name: missing"),
        (put(None, *TABLE, "attributes"), {}, "cache_schedule.attributes"),
        (put([], "config"), {}, "config: wrong type of value: expected an object, found []"),
        (put("fast", "metrics"), {}, 'metrics: wrong type of value: expected an object, found "fast"'),
        (put(float("nan"), "metrics", "latency", "avg"), {}, "metrics.latency.avg: not a finite number"),
        (put([0.5, float("-inf")], "metrics", "l"), {}, "metrics.l.1: not a finite number: expected a number"),
        (put("\ud800", "config", "s"), {}, "config.s: not a JSON value"),
        (put({"name": "f"}, *CUSTOM), {"component": "custom_compute_attn"}, "kwargs: missing"),
        (put({"name": 1, "kwargs": {}}, *CUSTOM), {"step": "001", "block": "1"}, "name: wrong type of value"),
        (put(True, *CUSTOM), {"component": "custom_compute_attn"}, "wrong type of value"),
        (put([], "cache_schedule"), {}, "cache_schedule: wrong type of value"),
        (drop("cache_schedule"), {}, "cache_schedule: missing"),
        (put({}, "dit_schedule"), {}, "holds a dit_schedule (a graph of blocks)"),
        (put({}, *TABLE, "dit_schedule"), {}, "expected a cache_schedule, found a dit_schedule"),
    ],
)  # fmt: skip
def test_refuses_what_is_malformed(pixart: Document, change: Any, place: dict[str, str], words: str) -> None:
    change(pixart)
    error = refusal(pixart)
    assert {key: getattr(error, key) for key in place} == place
    assert words in str(error)
    assert str(error).isprintable()


def test_refuses_a_graph_of_blocks_by_name() -> None:
    assert "dit_schedule" in str(refusal({"dit_schedule": {"blocks": []}, "config": {}}))


@pytest.mark.parametrize("document", [None, 1, "text", [], [[]], {}, {"cache_schedule": {}}])
def test_refuses_other_json(document: object) -> None:
    assert str(refusal(document))


def test_refuses_what_python_could_hold_but_json_could_not(pixart: Document) -> None:
    pixart["metrics"]["count"] = np.int64(3)
    assert "metrics.count: not a JSON value" in str(refusal(pixart))
    pixart["metrics"] = {1: 2}
    assert "metrics: not a key of a JSON object" in str(refusal(pixart))


def test_the_odd_step_out_is_blamed_even_if_it_is_the_first(flux: Document) -> None:
    cells(flux, "000")["single_1"]["extra"] = True
    error = refusal(flux)
    assert (error.step, error.block, error.component) == ("000", "single_1", "extra")
    del cells(flux, "000")["single_1"]
    assert (error := refusal(flux)).block == "single_1"
    assert error.found == "4 blocks"


def test_the_odd_step_out_is_blamed_where_blocks_are_module_paths() -> None:
    document = CacheSchedule(np.ones((3, 2), dtype=bool), (("layers.0", "attn"), ("layers.1", "attn"))).to_json()
    del cells(document, "000")["layers.1"]
    error = refusal(document)
    assert (error.step, error.block, error.problem) == ("000", "layers.1", "the block is missing")


def test_a_component_that_one_block_lacks_at_every_step_is_missed(flux: Document) -> None:
    for row in flux["cache_schedule"]["schedule"].values():
        del row["1"]["full_ff"]
    error = refusal(flux)
    assert (error.step, error.block, error.component) == ("000", "1", "full_ff")


def test_number_of_named_blocks_must_match() -> None:
    document = CacheSchedule([[True]], (("layers.0", "attn"),)).to_json()
    document["cache_schedule"]["num_blocks"] = 2
    assert str(refusal(document)).endswith("expected 2 blocks (num_blocks), found 1 block")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"none", "not JSON: expected a cache schedule as JSON, found Expecting value at line 1, column 1"),
        (lambda text: text[:-10].encode(), "not JSON"),
        (lambda text: text.encode("utf-16"), "not text: expected JSON in UTF-8, found byte 0xff at 0"),
        (b'{"cache_schedule": "\xff"}', "found byte 0xff at 20"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"[" * 66 + b"]" * 66, "nested too deeply"),
        (b"1" * 5000, "not readable as JSON"),
        (lambda text: text.replace("12.5", "NaN").encode(), "metrics.latency.avg: not a finite number"),
        (lambda text: text.replace("12.5", "1e999").encode(), "found inf"),
        (
            lambda text: text.replace('"attn2": false', '"attn2": false, "attn2": true').encode(),
            "the key appears twice",
        ),
        (
            lambda text: text.replace('"metrics"', '"config"').encode(),
            "config: the key appears twice: expected one value",
        ),
    ],
)
def test_refuses_files_that_are_no_such_json(tmp_path: Path, pixart_text: str, content: Content, words: str) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(content if isinstance(content, bytes) else content(pixart_text))
    with pytest.raises(ScheduleError) as caught:
        CacheSchedule.load(file)
    assert caught.value.file == str(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert words in str(caught.value)


def test_a_repeated_component_is_placed(tmp_path: Path, pixart_text: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(pixart_text.replace('"attn2": false', '"attn2": false, "attn2": true'))
    with pytest.raises(ScheduleError, match=r"the key appears twice \(step 001, block 1, component attn2\)"):
        CacheSchedule.load(file)


@pytest.mark.parametrize("name", ["missing.json", ".", "no/such/folder.json", "a\0b"])
def test_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ScheduleError, match="cannot read this schedule: ") as caught:
        CacheSchedule.load(tmp_path / name)
    assert str(caught.value).isprintable()
