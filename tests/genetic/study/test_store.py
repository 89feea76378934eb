from __future__ import annotations

import sqlite3

import numpy as np
import pytest
from synthetic import problem

from ecad.errors import EcadError
from ecad.execution import Failure
from ecad.genetic import Item, Store
from ecad.genetic.algorithms.nsga2 import Nsga2
from ecad.genetic.study.items import all_items
from ecad.prompts import Prompt
from ecad.schedules import heuristics, pixart_sites
from ecad.schedules.plan_key import key_without_sites, plan_key

ITEMS = all_items([Prompt("a", "an ant"), Prompt("b", "a bee")], [0, 1])
SETTINGS = {"mode": "fast", "seeds": [0, 1], "prompts": [["a", "an ant"]], "evaluator": {"guidance_scale": 4.5}}


@pytest.fixture
def asked():
    search = Nsga2(problem(), 4, 0, np.zeros((0, 5, 6), dtype=bool))
    return search.ask(), np.arange(4), search.random_state


def test_scores_come_back_to_the_last_bit(tmp_path):
    scores = np.array([0.1, -1e-308, np.pi, 1e300])
    with Store.open(tmp_path) as store:
        store.add_scores(b"plan", ITEMS[:3], "x", scores[:3])
        assert np.array_equal(store.scores(b"plan", ITEMS, "x"), [*scores[:3], np.nan], equal_nan=True)
        store.add_scores(b"plan", ITEMS[3:], "x", scores[3:])
        store.add_scores(b"plan", ITEMS[3:], "y", scores[:1])
    with Store.read(tmp_path) as store:
        assert np.array_equal(store.scores(b"plan", ITEMS[::-1], "x"), scores[::-1])
        assert store.scores(b"plan", ITEMS[3:], "y").tolist() == [0.1]
        assert np.isnan(store.scores(b"other", ITEMS, "x")).all()
        assert np.isnan(store.scores(b"plan", [Item(Prompt("a", "an ant"), 2)], "x")).all()


def test_a_first_score_is_never_overwritten():
    with Store.open(None) as store:
        store.add_scores(b"plan", ITEMS[:1], "x", np.array([1.0]))
        store.add_scores(b"plan", ITEMS[:1], "x", np.array([2.0]))
        assert store.scores(b"plan", ITEMS[:1], "x").tolist() == [1.0]


def test_a_generation_is_kept_and_checked(tmp_path, asked):
    bits, cost, state = asked
    with Store.open(tmp_path) as store:
        assert np.isnan(store.begin(0, bits, cost, state)).all()
        store.complete(0, 2, 0.5, seconds=1.5)
        store.complete(0, 0, 0.25, seconds=2.0)
    with Store.open(tmp_path) as store:
        assert np.array_equal(store.begin(0, bits, cost, state), [0.25, np.nan, 0.5, np.nan], equal_nan=True)
        assert [(row.number, row.images, row.seconds) for row in store.generations()] == [(0, 0, 3.5)]
        assert [row.cost for row in store.candidates(0)] == [0, 1, 2, 3]
        assert store.candidates(1) == []
        other_state = {**state, "state": {**state["state"], "state": state["state"]["state"] + 1}}
        for changed in ((bits[::-1], cost, state), (bits, cost + 1, state), (bits, cost, other_state)):
            with pytest.raises(EcadError, match="generation 0 has other candidates than when the study began"):
                store.begin(0, *changed)


def test_images_are_counted_where_they_were_made(asked):
    with Store.open(None) as store:
        store.begin(0, *asked)
        store.begin(1, *asked)
        store.add_scores(b"plan", ITEMS, "x", np.zeros(4), generation=1)
        store.add_scores(b"plan", ITEMS, "y", np.zeros(4))
        assert [row.images for row in store.generations()] == [0, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "paper"}, 'mode: expected "fast", found "paper"'),
        ({"seeds": [0, 1, 2]}, r"seeds: expected \[0, 1\], found \[0, 1, 2\]"),
        ({"seeds": list(range(100))}, r"seeds: expected \[0, 1\], found 100 entries"),
        ({"prompts": [["a", "an ape"]]}, r'prompts\[0\]\[1\]: expected "an ant", found "an ape"'),
        ({"evaluator": {"guidance_scale": 3}}, "evaluator.guidance_scale: expected 4.5, found 3"),
        ({"evaluator": {}}, "evaluator.guidance_scale: expected 4.5, found nothing"),
        ({"new": 1}, "new: expected nothing, found 1"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, changes, message):
    with Store.open(tmp_path) as store:
        store.ensure_settings(SETTINGS, {"numpy": "2"})
        with pytest.raises(EcadError, match=f"the study has other settings: {message}; use those or another folder$"):
            store.ensure_settings({**SETTINGS, **changes}, {})
        assert store.settings() == SETTINGS


def test_versions_that_worked_on_a_study_are_all_kept(tmp_path):
    for version in ("2.0", "2.1", "2.0"):
        with Store.open(tmp_path) as store:
            store.ensure_settings(SETTINGS, {"numpy": version, "ecad": "0.1"})
    with Store.read(tmp_path) as store:
        assert store.versions() == {"ecad": ["0.1"], "numpy": ["2.0", "2.1"]}


def test_one_writes_and_others_read(tmp_path):
    with Store.open(tmp_path) as store:
        with pytest.raises(EcadError, match="another process is searching this study"):
            Store.open(tmp_path)
        store.add_scores(b"plan", ITEMS[:1], "x", np.ones(1))
        with Store.read(tmp_path) as reader:
            assert reader.scores(b"plan", ITEMS[:1], "x").tolist() == [1.0]
            store.add_scores(b"plan", ITEMS[1:2], "x", np.ones(1))
            assert reader.scores(b"plan", ITEMS[1:2], "x").tolist() == [1.0]
            with pytest.raises(EcadError, match="readonly"):
                reader.add_scores(b"plan", ITEMS[2:], "x", np.ones(2))
    Store.open(tmp_path).close()


@pytest.mark.parametrize("opened", [Store.open, Store.read])
def test_what_is_no_study_is_refused_and_left_alone(tmp_path, opened):
    path = tmp_path / "study.sqlite"
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(EcadError, match=r"the study is damaged: study\.sqlite: file is not a database"):
        opened(tmp_path)
    assert path.read_bytes().startswith(b"not a database")


@pytest.mark.parametrize("opened", [Store.open, Store.read])
@pytest.mark.parametrize("version", [0, 7])
def test_another_programs_database_is_refused_and_left_alone(tmp_path, opened, version):
    path = tmp_path / "study.sqlite"
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA user_version = {version}")
    other.execute("CREATE TABLE t (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(EcadError, match="not a file of ecad"):
        opened(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("opened", [Store.open, Store.read])
def test_a_study_of_another_schema_is_refused(tmp_path, opened):
    Store.open(tmp_path).close()
    database = sqlite3.connect(tmp_path / "study.sqlite")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(EcadError, match="expected schema 1, found 99; use the ecad that wrote it"):
        opened(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EcadError, match="cannot make this study folder"):
        Store.open(tmp_path / "file" / "study")
    with pytest.raises(EcadError, match="cannot make this study folder"):
        Store.open(tmp_path / "file")


def test_a_transaction_that_fails_leaves_nothing(asked):
    bits, _, state = asked
    with Store.open(None) as store:
        with pytest.raises(sqlite3.Error):  # InterfaceError in Python 3.10
            store.begin(0, bits, np.array([1, 2, 3, object()]), state)
        assert store.generations() == []
        assert store.candidates() == []


def test_at_rest_a_study_is_one_file_that_reading_leaves_alone(tmp_path):
    with Store.open(tmp_path) as store:
        store.ensure_settings(SETTINGS, {})
    with Store.read(tmp_path) as store:
        assert store.settings() == SETTINGS
        assert {path.name for path in tmp_path.iterdir()} == {"study.sqlite", "study.lock"}
    with Store.open(tmp_path) as store, Store.read(tmp_path) as reader:
        store.close()  # while it is read
        assert reader.settings() == SETTINGS
    assert not Store.open(tmp_path).close()


def test_a_full_disk_is_told_and_costs_only_what_was_not_written(tmp_path, full_disk):
    with Store.open(tmp_path) as store:
        store.add_scores(b"first", ITEMS[:1], "x", np.ones(1))
        size = (tmp_path / "study.sqlite-wal").stat().st_size
        with full_disk(size), pytest.raises(EcadError, match=r"the study cannot be used: study\.sqlite: d") as caught:
            store.add_scores(b"second", ITEMS[:1], "x", np.ones(1))
        assert "\n" not in str(caught.value)
        store.add_scores(b"third", ITEMS[:1], "x", np.ones(1))
    with Store.read(tmp_path) as store:
        found = [float(store.scores(plan, ITEMS[:1], "x")[0]) for plan in (b"first", b"second", b"third")]
    np.testing.assert_equal(found, [1.0, np.nan, 1.0])


def test_what_a_killed_search_half_wrote_is_gone_when_it_goes_on(tmp_path):
    left = tmp_path / "gen_001" / "candidates" / ".0123.tmp"
    left.parent.mkdir(parents=True)
    left.touch()
    with Store.open(tmp_path):
        assert not left.exists()


def test_a_study_of_a_release_whose_keys_named_less_is_read_and_gone_on_with(tmp_path):
    """Those keys had no sites at their end, and the evaluator's settings no parts."""
    older, newer = heuristics.every_n(pixart_sites(1), 4, 2), heuristics.none(pixart_sites(1), 4)
    key = plan_key(older)
    with Store.open(tmp_path) as store:
        store.ensure_settings(SETTINGS, {"ecad": "0"})
        store.add_scores(key_without_sites(key), ITEMS[:2], "x", np.array([1.0, 2.0]))
        store.add_failures(key_without_sites(plan_key(newer)), ITEMS[:1], "x", Failure("no", 1))
    with Store.open(tmp_path) as store:
        store.ensure_settings(
            {**SETTINGS, "evaluator": {**SETTINGS["evaluator"], "parts": {"vae": "12ab"}}}, {"ecad": "1"}
        )
        assert store.settings() == SETTINGS
        store.add_scores(key, ITEMS[2:3], "x", np.array([3.0]))
        assert np.array_equal(store.scores(key, ITEMS, "x"), [1.0, 2.0, 3.0, np.nan], equal_nan=True)
        assert store.failures(plan_key(newer), ITEMS[:2], "x") == ["no", None]


def test_a_study_of_a_pipeline_with_another_part_is_refused(tmp_path):
    def settings(vae):
        return {**SETTINGS, "evaluator": {**SETTINGS["evaluator"], "parts": {"vae": vae}}}

    with Store.open(tmp_path) as store:
        store.ensure_settings(settings("12ab"), {})
        store.ensure_settings(settings("12ab"), {})
        with pytest.raises(EcadError, match=r"parts.*vae.*12ab.*34cd"):
            store.ensure_settings(settings("34cd"), {})


def test_scores_by_other_weights_of_a_scorer_are_refused(tmp_path):
    """Also those of a scorer that the search did not use: held-out scores."""
    ours = {"generator": "x", "scorer": "judge 1", "scorer_parts": {"judge": {"tokenizer": "12ab"}}}
    with Store.open(tmp_path) as store:
        store.ensure_scorer("judge", ours)
        store.ensure_scorer("judge", {**ours, "generator": "y"})
        store.ensure_scorer("psnr", {"generator": "x"})
        with pytest.raises(EcadError, match=r"by judge are of another one: scorer: expected \"judge 1\""):
            store.ensure_scorer("judge", {**ours, "scorer": "judge 2"})
        with pytest.raises(EcadError, match=r"scorer_parts.judge.tokenizer: expected \"12ab\", found \"34cd\""):
            store.ensure_scorer("judge", {**ours, "scorer_parts": {"judge": {"tokenizer": "34cd"}}})


def test_a_study_that_did_not_name_a_scorers_parts_is_gone_on_with(tmp_path):
    older = {**SETTINGS, "evaluator": {"parts": {"vae": "12ab"}, "scorer": "judge 1"}}
    newer = {**older, "evaluator": {**older["evaluator"], "scorer_parts": {"judge": {"tokenizer": "12ab"}}}}
    with Store.open(tmp_path) as store:
        store.ensure_settings(older, {})
        store.ensure_settings(newer, {})
        assert store.settings() == older
    with Store.open(tmp_path / "new") as store:
        store.ensure_settings(newer, {})
        with pytest.raises(EcadError, match=r"scorer_parts: expected .*tokenizer.* found nothing"):
            store.ensure_settings(older, {})
