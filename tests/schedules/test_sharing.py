"""Cards, shared folders and the hub."""

from __future__ import annotations

import json

import pytest
from evolved import ORIGIN

import ecad
from ecad.schedules import CacheSchedule
from ecad.schedules import sharing as hub
from ecad.schedules.front import Front, Point
from ecad.schedules.sharing import card


def test_the_card_says_all_that_is_known(schedule):
    text = card(schedule.replace(metrics={"total_macs": 1234567, "latency": {"speedup": 2.5, "gpu": "A6000"}}))
    for part in (
        "every_3",
        "PixArtAlphaImageGenerator",
        "0123456789abcdef",
        "DPMSolverMultistepScheduler",
        "256×256 pixels",
        "images: 1012",
        "1,234,567",
        "2.5 on A6000",
        "psnr: 30.50 [29.00, 32.00], 95% interval, 24 held-out images",
        "judge: 87.25 [86.00, 88.50]",
    ):
        assert part in text
    assert "Resampled from 12 steps" in card(schedule.resample(18))


def test_a_shared_folder_comes_back_as_it_was(schedule, tmp_path):
    schedule.save_pretrained(tmp_path / "shared")
    assert CacheSchedule.from_pretrained(tmp_path / "shared") == schedule
    readme = (tmp_path / "shared" / "README.md").read_text()
    assert readme.startswith("---\nlibrary_name: ecad\n")
    assert card(schedule) in readme


def test_the_hub_gets_the_file_and_the_card(schedule, monkeypatch):
    uploads = []

    class Api:
        def create_repo(self, repo, private, exist_ok):
            uploads.append((repo, private, exist_ok))

        def upload_folder(self, repo_id, folder_path, commit_message):
            files = {file.name: file.read_text() for file in sorted(hub.Path(folder_path).iterdir())}
            uploads.append((repo_id, files))
            return f"https://hub/{repo_id}"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert schedule.push_to_hub("me/mine") == "https://hub/me/mine"
    assert uploads[0] == ("me/mine", False, True)
    repo, files = uploads[1]
    assert (repo, list(files)) == ("me/mine", ["README.md", "schedule.json"])
    assert json.loads(files["schedule.json"]) == schedule.to_json()
    assert 'from_pretrained("me/mine")' in files["README.md"]


def test_the_hubs_refusal_is_one_line(schedule, monkeypatch):
    class Api:
        def create_repo(self, *args, **kwargs):
            raise ConnectionError("no route\nmore")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(ecad.EcadError, match=r"^me/mine: cannot upload the schedule: no route$"):
        schedule.push_to_hub("me/mine")


def test_a_folder_or_name_without_a_schedule_is_refused(tmp_path):
    with pytest.raises(ecad.ScheduleError, match=r"schedule.json: cannot read this schedule"):
        CacheSchedule.from_pretrained(tmp_path)
    with pytest.raises(ecad.EcadError, match=r"a/b/c: neither a folder nor a hub repository with a schedule\.json"):
        CacheSchedule.from_pretrained("a/b/c")


def test_the_card_of_a_hostile_file_is_text(schedule):
    odd = ORIGIN.to_json() | {"model": "\x1b[2J", "search": {"a\x07": "\x1b]0;x"}}
    hostile = schedule.replace(
        attributes={"provenance": odd}, metrics={"total_macs": "many", "latency": {"gpu": "\x00"}}
    )
    assert all(line.isprintable() for line in card(hostile).split("\n"))
    assert "MACs per image: many" in card(hostile)


def test_a_shared_front_comes_back_as_it_was(schedule, tmp_path, monkeypatch):
    front = Front("mine", [Point(schedule, 1 / 3, 30.0)])
    front.save_pretrained(tmp_path)
    assert Front.load(tmp_path) == Front.load(tmp_path / "front.json") == front
    readme = (tmp_path / "README.md").read_text()
    assert "speedup=3.00)" in readme
    assert "- model: PixArtAlphaImageGenerator" in readme
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download",
        lambda *args, **kwargs: asked.append((args, kwargs)) or str(tmp_path / "front.json"),
    )
    assert Front.load("me/mine", revision="a1") == front
    assert asked == [(("me/mine", "front.json"), {"revision": "a1"})]
