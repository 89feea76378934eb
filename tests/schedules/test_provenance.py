"""What a schedule was made for stays with it, and is refused when malformed."""

from __future__ import annotations

import pytest
from evolved import ORIGIN

import ecad
from ecad.schedules import CacheSchedule, pixart_sites
from ecad.schedules import sharing as hub
from ecad.schedules.front import Front, Point
from ecad.schedules.provenance import made_for


def test_it_survives_the_file(schedule, tmp_path):
    schedule.save(tmp_path / "a.json")
    assert made_for(CacheSchedule.load(tmp_path / "a.json").attributes) == (ORIGIN, None)


def test_it_goes_when_the_bits_change(schedule):
    assert made_for(schedule.replace(recompute=~schedule.recompute).attributes) == (None, None)


def test_resampling_remembers_it_and_the_steps(schedule):
    assert made_for(schedule.resample(18).attributes) == (ORIGIN, 12)
    assert made_for(schedule.resample(sites=pixart_sites(3)).attributes) == (None, None)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"layout": 5}, "layout"),
        ({"surprise": 1}, "surprise"),
        ({"held_out": {"psnr": {"mean": "high", "low": 0, "high": 1}}}, "held_out.psnr.mean"),
        ({"latents": [4, -1]}, "latents.1"),
    ],
)
def test_a_malformed_one_is_refused_with_its_place(schedule, change, place):
    odd = schedule.replace(attributes={"provenance": {**ORIGIN.to_json(), **change}})
    with pytest.raises(ecad.ScheduleError, match=f"attributes.provenance.{place}"):
        made_for(odd.attributes)


def test_the_hub_gets_a_front_and_its_card(schedule, monkeypatch):
    uploads = []

    class Api:
        def create_repo(self, repo, private, exist_ok):
            pass

        def upload_folder(self, repo_id, folder_path, commit_message):
            uploads.append((sorted(file.name for file in hub.Path(folder_path).iterdir()), commit_message))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    Front("mine", [Point(schedule, 1 / 3, 30.0)]).push_to_hub("me/mine")
    assert uploads == [(["README.md", "front.json"], "Front mine")]
