"""Any schedule survives its file; any damage to a file is noticed."""

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

words = st.text(min_size=1, max_size=8).filter(str.isprintable)
paths = words.filter(lambda word: not word.removeprefix("single_").isdigit())
products = st.builds(
    lambda outputs: np.array(outputs)[:, None] * np.array(outputs), st.lists(st.floats(-9, 9), min_size=1, max_size=4)
)
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
        forecast=draw(st.booleans()),
        output_products=draw(st.none() | products.filter(lambda table: len(table) == steps)),
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
@settings(max_examples=150)
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
@settings(max_examples=150)
def test_a_damaged_file_is_valid_or_refused(folder: Path, pixart_text: str, data: st.DataObject) -> None:
    content = bytearray(pixart_text.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        first = data.draw(st.integers(0, len(content)))
        last = data.draw(st.integers(first, min(first + 8, len(content))))
        content[first:last] = data.draw(
            st.binary(max_size=8) | st.sampled_from([b'"', b"{", b"}", b",", b"1", b"true"])
        )
    (folder / "damaged.json").write_bytes(content)
    outcome = valid_or_refused(lambda: CacheSchedule.load(folder / "damaged.json"))
    assert outcome.isprintable() if isinstance(outcome, str) else outcome.to_json() == json.loads(content)
