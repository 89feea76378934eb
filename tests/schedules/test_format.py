from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecad import CacheSchedule, ScheduleError
from ecad.schedules import flux_sites, pixart_sites

# A whole file of the published format, written by hand.
PIXART = """{
    "cache_schedule": {
        "num_blocks": 2,
        "num_inference_steps": 2,
        "name": "tiny",
        "attributes": {
            "num_affected_steps": 1
        },
        "schedule": {
            "000": {
                "0": {
                    "attn1": true,
                    "attn2": true,
                    "ff": true
                },
                "1": {
                    "attn1": true,
                    "attn2": true,
                    "ff": true
                }
            },
            "001": {
                "0": {
                    "attn1": false,
                    "attn2": true,
                    "ff": false
                },
                "1": {
                    "attn1": false,
                    "attn2": false,
                    "ff": true
                }
            }
        }
    },
    "metrics": {
        "total_macs": 12345678901234567890,
        "latency": {
            "avg": 12.5,
            "latencies": [
                12.0,
                13.0
            ]
        }
    },
    "config": {
        "height": 256,
        "guidance_scale": 4.5
    }
}
"""
Document = dict[str, Any]


@pytest.fixture
def pixart() -> Document:
    return json.loads(PIXART)


@pytest.fixture
def flux() -> Document:
    return CacheSchedule(np.ones((3, 15), dtype=bool), flux_sites(3, 2), name="flux").to_json()


def cells(document: Document, step: str) -> Document:
    return document["cache_schedule"]["schedule"][step]


def refusal(document: object) -> ScheduleError:
    with pytest.raises(ScheduleError) as caught:
        CacheSchedule.from_json(document)
    return caught.value


def test_reads_the_published_format(tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(PIXART)
    schedule = CacheSchedule.load(tmp_path / "tiny.json")
    assert schedule.recompute.tolist() == [[True] * 6, [False, True, False, False, False, True]]
    assert schedule.sites == pixart_sites(2)
    assert schedule.name == "tiny"
    assert schedule.attributes == {"num_affected_steps": 1}
    assert schedule.metrics["total_macs"] == 12345678901234567890
    assert schedule.config == {"height": 256, "guidance_scale": 4.5}


def test_writes_what_it_read_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(PIXART)
    CacheSchedule.load(tmp_path / "tiny.json").save(str(tmp_path / "again.json"))
    assert (tmp_path / "again.json").read_text() == PIXART


def test_every_published_file_round_trips(shared_data: Path) -> None:
    files = sorted((shared_data / "published-schedules").glob("*/*.json"))
    assert len(files) == 143
    for file in files:
        text = file.read_text()
        assert json.dumps(CacheSchedule.load(file).to_json(), indent=4) == text.rstrip("\n"), file


def test_keys_that_nobody_knows_are_kept_in_their_places() -> None:
    document = {"first": None, **json.loads(PIXART), "last": [1, {"a": None}]}
    document["cache_schedule"] = {"made_by": "someone", **document["cache_schedule"]}
    again = CacheSchedule.from_json(document).to_json()
    assert json.dumps(again) == json.dumps(document)


@pytest.mark.parametrize("key", ["config", "metrics"])
def test_missing_objects_stay_missing_and_mean_empty(pixart: Document, key: str) -> None:
    pixart[key] = {}
    empty = CacheSchedule.from_json(pixart)
    del pixart[key]
    missing = CacheSchedule.from_json(pixart)
    assert getattr(missing, key) == {}
    assert key not in missing.to_json()
    assert missing == empty
    assert hash(missing) == hash(empty)
    assert missing.replace(**{key: {"height": 1}}).to_json()[key] == {"height": 1}


def test_missing_attributes_mean_empty(pixart: Document) -> None:
    del pixart["cache_schedule"]["attributes"]
    schedule = CacheSchedule.from_json(pixart)
    assert schedule.attributes == {}
    assert schedule.to_json() == pixart


def test_rows_past_the_number_of_steps_are_kept_and_do_not_count(pixart: Document) -> None:
    pixart["cache_schedule"]["num_inference_steps"] = 1
    schedule = CacheSchedule.from_json(pixart)
    assert schedule.num_steps == 1
    assert schedule.to_bits().tolist() == [True] * 6
    assert schedule.spare.tolist() == [[False, True, False, False, False, True]]
    assert json.dumps(schedule.to_json()) == json.dumps(pixart)


def test_published_flux_file_with_more_rows_than_steps(shared_data: Path) -> None:
    folder = shared_data / "published-schedules" / "flux_default"
    schedule = CacheSchedule.load(folder / "default_1024x1024_gs_5.0_steps_08.json")
    assert schedule.recompute.shape == (8, 171)
    assert schedule.spare.shape == (42, 171)


def test_order_in_the_file_does_not_matter() -> None:
    sites = pixart_sites(12)
    rng = np.random.default_rng(0)
    schedule = CacheSchedule(rng.random((11, len(sites))) < 0.5, sites, name="x")
    document = schedule.to_json()
    table = document["cache_schedule"]
    # Sorted as text: "0", "1", "10", "11", "2", ...
    table["schedule"] = json.loads(json.dumps(dict(reversed(table["schedule"].items())), sort_keys=True))
    shuffled = CacheSchedule.from_json(document)
    assert shuffled.blocks == tuple(map(str, range(12)))
    assert shuffled == schedule
    assert shuffled.to_json() == document


def test_flux_genes_are_all_double_blocks_then_all_single_blocks(flux: Document) -> None:
    table = flux["cache_schedule"]
    table["schedule"] = {
        step: {block: dict(reversed(bits.items())) for block, bits in reversed(row.items())}
        for step, row in table["schedule"].items()
    }
    assert CacheSchedule.from_json(flux).sites == flux_sites(3, 2)


def test_other_models_name_blocks_by_module_path_and_keep_the_order_of_the_file() -> None:
    sites = (
        ("layers.10", "attention"),
        ("layers.10", "feed_forward"),
        ("layers.9", "attention"),
        ("refiner.0", "attn"),
    )
    schedule = CacheSchedule([[True, False, True, True]], sites, name="z")
    document = schedule.to_json()
    assert document["cache_schedule"]["num_blocks"] == 3
    assert "num_single_blocks" not in document["cache_schedule"]
    assert CacheSchedule.from_json(json.loads(json.dumps(document))).sites == sites


def test_custom_compute_entries_are_data(pixart: Document) -> None:
    entry = {"name": "compute_attn_tgate", "kwargs": {"gate_step": 1, "more": [1, None]}}
    cells(pixart, "001")["1"]["custom_compute_attn"] = entry
    schedule = CacheSchedule.from_json(pixart)
    assert schedule.sites == pixart_sites(2)
    assert list(schedule.custom_compute) == [(1, "1", "custom_compute_attn")]
    assert schedule.custom_compute[1, "1", "custom_compute_attn"]["name"] == "compute_attn_tgate"
    assert schedule.to_json() == pixart
    del cells(pixart, "001")["1"]["custom_compute_attn"]
    assert schedule != CacheSchedule.from_json(pixart)


def test_published_tgate_files_carry_custom_attention_at_every_step_and_block(shared_data: Path) -> None:
    for file in (shared_data / "published-schedules" / "pixart_alpha_tgate").glob("*.json"):
        schedule = CacheSchedule.load(file)
        gate = schedule.attributes["gate_step"]
        entry = {"name": "compute_attn_tgate", "kwargs": {"gate_step": gate}}
        keys = {(step, str(block), "custom_compute_attn") for step in range(20) for block in range(28)}
        assert schedule.custom_compute == dict.fromkeys(keys, entry)


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
        (drop(*CELL), AT_CELL, "the component is missing: expected attn1, attn2, ff, found attn1, ff"),
        (
            put(True, *STEPS, "000", "0", "attn3"),
            {"step": "000", "block": "0", "component": "attn3"},
            "not a component of this block: expected attn1, attn2, ff, found attn1, attn2, ff, attn3",
        ),
        (put({}, *STEPS, "001", "1"), {"step": "001", "block": "1", "component": "attn1"}, "found none"),
        (put(True, *STEPS, "001", "1"), {"step": "001", "block": "1"}, "expected an object, found true"),
        (drop(*STEPS, "000", "0"), {"step": "000", "block": "0"}, "the block is missing: expected 2 blocks (0 to 1)"),
        (put({}, *STEPS, "001", "2"), {"step": "001", "block": "2"}, "not a block of this schedule"),
        (put({}, *STEPS, "001", "01"), {"step": "001", "block": "01"}, "not a block of this schedule"),
        (put([], *STEPS, "001"), {"step": "001"}, "expected an object, found []"),
        (drop(*STEPS, "000"), {"step": "000"}, "is missing: expected 2 steps (num_inference_steps), 000 and on"),
        (drop(*STEPS, "001"), {"step": "001"}, "found 1 steps"),
        (put({}, *STEPS, "2"), {"step": "2"}, "not a step's key: expected 000 to 002, found 3 steps"),
        (put({}, *STEPS, "003"), {"step": "003"}, "not a step's key"),
        (put({}, *STEPS, "٠٠٢"), {"step": "٠٠٢"}, "not a step's key"),
        (put({}, *STEPS), {"step": "000"}, "found 0 steps"),
        (put([], *STEPS), {}, "cache_schedule.schedule: wrong kind of value: expected an object, found []"),
        (drop(*STEPS), {}, "cache_schedule.schedule: missing: expected a value, found nothing"),
        (put(3, *TABLE, "num_inference_steps"), {"step": "002"}, "expected 3 steps"),
        (put(10**15, *TABLE, "num_inference_steps"), {}, "less than or equal to 99999, found 1000000000000000"),
        (put(0, *TABLE, "num_inference_steps"), {}, "cache_schedule.num_inference_steps"),
        (put(-1, *TABLE, "num_inference_steps"), {}, "found -1"),
        (put(2.0, *TABLE, "num_inference_steps"), {}, "expected a valid integer, found 2.0"),
        (put(True, *TABLE, "num_inference_steps"), {}, "expected a valid integer, found true"),
        (drop(*TABLE, "num_inference_steps"), {}, "cache_schedule.num_inference_steps: missing"),
        (put(3, *TABLE, "num_blocks"), {"step": "000", "block": "2"}, "expected 3 blocks (0 to 2), found 2 blocks"),
        (put(1, *TABLE, "num_blocks"), {"step": "000", "block": "1"}, "expected 1 blocks (0 to 0), found 2 blocks"),
        (put(0, *TABLE, "num_blocks"), {"step": "000", "block": "0"}, "expected no blocks, found 2 blocks"),
        (put("2", *TABLE, "num_blocks"), {}, "cache_schedule.num_blocks: wrong kind of value: expected a valid int"),
        (drop(*TABLE, "num_blocks"), {}, "cache_schedule.num_blocks: missing"),
        (put(1, *TABLE, "num_single_blocks"), {"step": "000", "block": "single_0"}, "the block is missing"),
        (put(None, *TABLE, "num_single_blocks"), {}, "cache_schedule.num_single_blocks"),
        (put(3, *TABLE, "name"), {}, "cache_schedule.name: wrong kind of value: expected a valid string, found 3"),
        (put("a\nb", *TABLE, "name"), {}, "expected one line of text"),
        (drop(*TABLE, "name"), {}, "cache_schedule.name: missing"),
        (put(None, *TABLE, "attributes"), {}, "cache_schedule.attributes"),
        (put([], "config"), {}, "config: wrong kind of value: expected an object, found []"),
        (put("fast", "metrics"), {}, 'metrics: wrong kind of value: expected an object, found "fast"'),
        (put(float("nan"), "metrics", "latency", "avg"), {}, "metrics.latency.avg: not a finite number"),
        (put([0.5, float("-inf")], "metrics", "l"), {}, "metrics.l.1: not a finite number: expected a number"),
        (put("\ud800", "config", "s"), {}, "config.s: not a JSON value"),
        (put({"name": "f"}, *CUSTOM), {"component": "custom_compute_attn"}, "kwargs: missing"),
        (put({"name": 1, "kwargs": {}}, *CUSTOM), {"step": "001", "block": "1"}, "name: wrong kind of value"),
        (put(True, *CUSTOM), {"component": "custom_compute_attn"}, "wrong kind of value"),
        (put([], "cache_schedule"), {}, "cache_schedule: wrong kind of value"),
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
    assert str(refusal(document)).endswith("expected 2 blocks (num_blocks), found 1 blocks")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"none", "not JSON: expected a cache schedule as JSON, found Expecting value at line 1, column 1"),
        (PIXART[:-10].encode(), "not JSON"),
        (PIXART.encode("utf-16"), "not text: expected JSON in UTF-8, found byte 0xff at 0"),
        (b'{"cache_schedule": "\xff"}', "found byte 0xff at 20"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"[" * 66 + b"]" * 66, "nested too deeply"),
        (b"1" * 5000, "not readable as JSON"),
        (PIXART.replace("12.5", "NaN").encode(), "metrics.latency.avg: not a finite number"),
        (PIXART.replace("12.5", "1e999").encode(), "found inf"),
        (PIXART.replace('"attn2": false', '"attn2": false, "attn2": true').encode(), "the key appears twice"),
        (PIXART.replace('"metrics"', '"config"').encode(), "config: the key appears twice: expected one value"),
    ],
)
def test_refuses_files_that_are_no_such_json(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(content)
    with pytest.raises(ScheduleError) as caught:
        CacheSchedule.load(file)
    assert caught.value.file == str(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert words in str(caught.value)


def test_a_repeated_component_is_placed(tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text(PIXART.replace('"attn2": false', '"attn2": false, "attn2": true'))
    with pytest.raises(ScheduleError, match="step 001, block 1, component attn2: the key appears twice"):
        CacheSchedule.load(file)


@pytest.mark.parametrize("name", ["missing.json", ".", "no/such/folder.json", "a\0b"])
def test_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ScheduleError, match="cannot be read: expected a schedule file, found ") as caught:
        CacheSchedule.load(tmp_path / name)
    assert str(caught.value).isprintable()


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "bom.json").write_bytes(PIXART.encode("utf-8-sig"))
    assert CacheSchedule.load(tmp_path / "bom.json").name == "tiny"


words = st.text(min_size=1, max_size=8).filter(str.isprintable)
paths = words.filter(lambda word: not word.removeprefix("single_").isdigit())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=8), json_values, max_size=4)
named_sites = st.lists(
    st.tuples(paths, st.lists(words, min_size=1, max_size=3, unique=True)), min_size=1, max_size=4
).map(
    lambda blocks: tuple((block, component) for block, components in dict(blocks).items() for component in components)
)
all_sites = st.one_of(
    st.integers(1, 12).map(pixart_sites), st.builds(flux_sites, st.integers(1, 3), st.integers(0, 12)), named_sites
)


@st.composite
def schedules(draw: st.DrawFn) -> CacheSchedule:
    sites = draw(all_sites)
    steps, spare = draw(st.integers(1, 4)), draw(st.integers(0, 2))
    bits = st.lists(st.booleans(), min_size=len(sites), max_size=len(sites))
    places = st.tuples(
        st.integers(0, steps + spare - 1),
        st.sampled_from(sites).map(lambda site: site[0]),
        st.sampled_from(["custom_compute_attn", "custom_compute_ff"]),
    )
    entries = st.fixed_dictionaries({"name": st.text(max_size=4), "kwargs": objects})
    return CacheSchedule(
        np.array(draw(st.lists(bits, min_size=steps, max_size=steps))),
        sites,
        name=draw(st.text(max_size=8).filter(str.isprintable)),
        config=draw(objects),
        metrics=draw(objects),
        attributes=draw(objects),
        custom_compute=draw(st.dictionaries(places, entries, max_size=2)),
        spare=np.array(draw(st.lists(bits, min_size=spare, max_size=spare)), dtype=bool).reshape(spare, len(sites)),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schedules")


@given(schedule=schedules())
def test_any_schedule_survives_its_file(folder: Path, schedule: CacheSchedule) -> None:
    schedule.save(folder / "any.json")
    again = CacheSchedule.load(folder / "any.json")
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert again.sites == schedule.sites
    assert np.array_equal(again.recompute, schedule.recompute)
    assert json.dumps(again.to_json()) == json.dumps(schedule.to_json())


def valid_or_refused(load: Callable[[], CacheSchedule]) -> CacheSchedule | str:
    try:
        return load()
    except ScheduleError as error:
        return str(error)


def containers(value: Any) -> list[Any]:
    items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value] * bool(items) + [inner for item in items for inner in containers(item)]


@given(schedule=schedules(), data=st.data())
@settings(max_examples=300)
def test_a_changed_document_is_valid_or_refused(schedule: CacheSchedule, data: st.DataObject) -> None:
    document = copy.deepcopy(schedule.to_json())
    for _ in range(data.draw(st.integers(1, 3))):
        container = data.draw(st.sampled_from(containers(document) or [document]))
        if isinstance(container, dict):
            key = data.draw(st.sampled_from(list(container)) | st.text(max_size=4))
            container.pop(key, None)
        else:
            key = data.draw(st.integers(0, len(container) - 1))
        if isinstance(container, list) or data.draw(st.booleans()):
            container[key] = data.draw(json_values | st.floats())
    outcome = valid_or_refused(lambda: CacheSchedule.from_json(document))
    assert outcome.isprintable() if isinstance(outcome, str) else outcome.to_json() == document


@given(data=st.data())
@settings(max_examples=300)
def test_a_damaged_file_is_valid_or_refused(folder: Path, data: st.DataObject) -> None:
    content = bytearray(PIXART.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        first = data.draw(st.integers(0, len(content)))
        last = data.draw(st.integers(first, min(first + 8, len(content))))
        content[first:last] = data.draw(
            st.binary(max_size=8) | st.sampled_from([b'"', b"{", b"}", b",", b"1", b"true"])
        )
    (folder / "damaged.json").write_bytes(content)
    outcome = valid_or_refused(lambda: CacheSchedule.load(folder / "damaged.json"))
    assert outcome.isprintable() if isinstance(outcome, str) else outcome.to_json() == json.loads(content)
