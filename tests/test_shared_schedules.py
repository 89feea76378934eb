"""What lies in schedules/ is what it says, and fits the models it is for."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import ecad
from ecad.cost import count_macs
from ecad.image_generators import get_image_generator
from ecad.schedules import CacheSchedule
from ecad.schedules.sharing import CARD, card

FOLDER = Path(__file__).parents[1] / "schedules"
SHARED = sorted(file.parent for file in FOLDER.glob("*/*/schedule.json"))


@pytest.mark.parametrize("folder", SHARED, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_a_shared_schedule_is_priced_and_has_its_card(folder: Path) -> None:
    schedule = CacheSchedule.from_pretrained(folder)
    assert schedule.metrics["total_macs"] == count_macs(schedule, folder.parent.name)
    text = (folder / CARD).read_text(encoding="utf-8")
    assert card(schedule) in text
    assert f'from_pretrained("schedules/{folder.parent.name}/{folder.name}")' in text


def test_those_of_the_built_in_model_were_made_for_it() -> None:
    name = "EmojiImageGenerator"
    pipe = get_image_generator(name, device="cpu").pipe
    found = [folder for folder in SHARED if folder.parent.name == name]
    assert len(found) >= 5
    for folder in found:
        schedule = CacheSchedule.from_pretrained(folder)
        assert set(schedule.attributes["provenance"]["held_out"]) == {"psnr", "judge"}
        with warnings.catch_warnings():
            warnings.simplefilter("error", ecad.EcadWarning)
            ecad.enable_cache(pipe, schedule)
