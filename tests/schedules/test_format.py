"""Reading and writing the published format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecad import CacheSchedule
from ecad.schedules import flux_sites, pixart_sites

Document = dict[str, Any]


def cells(document: Document, step: str) -> Document:
    return document["cache_schedule"]["schedule"][step]


def test_reads_the_published_format(tmp_path: Path, pixart_text: str) -> None:
    (tmp_path / "tiny.json").write_text(pixart_text)
    schedule = CacheSchedule.load(tmp_path / "tiny.json")
    assert schedule.recompute.tolist() == [[True] * 6, [False, True, False, False, False, True]]
    assert schedule.sites == pixart_sites(2)
    assert schedule.name == "tiny"
    assert schedule.attributes == {"num_affected_steps": 1}
    assert schedule.metrics["total_macs"] == 12345678901234567890
    assert schedule.config == {"height": 256, "guidance_scale": 4.5}


def test_writes_what_it_read_byte_for_byte(tmp_path: Path, pixart_text: str) -> None:
    (tmp_path / "tiny.json").write_text(pixart_text)
    CacheSchedule.load(tmp_path / "tiny.json").save(str(tmp_path / "again.json"))
    assert (tmp_path / "again.json").read_text() == pixart_text


def test_every_published_file_round_trips(shared_data: Path) -> None:
    files = sorted((shared_data / "published-schedules").glob("*/*.json"))
    assert len(files) == 143
    for file in files:
        text = file.read_text()
        assert json.dumps(CacheSchedule.load(file).to_json(), indent=4) == text.rstrip("\n"), file


def test_keys_that_nobody_knows_are_kept_in_their_places(pixart: Document) -> None:
    document = {"first": None, **pixart, "last": [1, {"a": None}]}
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


def test_a_byte_order_mark_is_no_fault(tmp_path: Path, pixart_text: str) -> None:
    (tmp_path / "bom.json").write_bytes(pixart_text.encode("utf-8-sig"))
    assert CacheSchedule.load(tmp_path / "bom.json").name == "tiny"
