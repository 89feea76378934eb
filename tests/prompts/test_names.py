from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecad.errors import EcadError
from ecad.prompts import Prompt, image_stem, match_images, prompt_key, prompt_stem
from ecad.prompts.names import mjhq_stem, without_colons

PUBLISHED = [
    ("003__prompt_id:005695-0057__prompt_seed:000__image_seed:004", "image_reward", "005695-0057"),
    ("003__prompt_id:a__b:c__prompt_seed:000__image_seed:004", "image_reward", "a__b:c"),
    ("003__prompt_id:50%41__prompt_seed:000", "image_reward", "50%41"),
    ("0003__prompt_seed:000__image_seed:004", "parti", 3),
    ("0003__prompt_seed:000__image_seed:004", "toca", 3),
    ("0003__cfg:4.5__image_seed:004", "toca", 3),
    ("0003__x", "toca", 3),
    ("bdb6b3c0fa26a0ca15f0", "mjhq", "bdb6b3c0fa26a0ca15f0"),
    ("29999__prompt_seed:000__image_seed:000", "coco", 29999),
    ("7", "coco", 7),
    ("12_a_dog", "coco", 12),
]


@pytest.mark.parametrize(("stem", "mode", "key"), PUBLISHED)
def test_every_published_pattern_is_read_and_rewritten_without_a_colon(stem: str, mode: str, key: int | str) -> None:
    assert prompt_key(stem, mode) == key  # type: ignore[arg-type]
    assert ":" not in without_colons(stem)
    assert prompt_key(without_colons(stem), mode) == key  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["image_reward", "parti", "toca", "coco"])
def test_a_name_of_another_kind_has_no_key(mode: str) -> None:
    assert prompt_key("reference", mode) is None  # type: ignore[arg-type]


def test_an_unknown_mode_is_refused_with_the_known_ones() -> None:
    with pytest.raises(EcadError, match="'geneval' is unknown: expected one of image_reward, parti"):
        prompt_key("0003", "geneval")  # type: ignore[arg-type]


IDS = st.text(min_size=1, max_size=12) | st.sampled_from(["a__b", "x__prompt_seed-000", "%41", "_", "a:b/c\\d", ".."])


@given(st.integers(0, 99_999), IDS.filter(lambda text: text.isprintable()), st.integers(0, 9999), st.integers(-9, 9999))
def test_what_is_written_is_read_in_every_mode(place: int, prompt_id: str, prompt_seed: int, image_seed: int) -> None:
    stem = image_stem(prompt_stem(place, prompt_id, prompt_seed), image_seed)
    assert not set(stem) & set('<>:"/\\|?*')
    assert Path(f"{stem}.png").stem == stem
    for mode in ("parti", "toca", "coco"):
        assert prompt_key(stem, mode) == place  # type: ignore[arg-type]
    assert prompt_key(stem, "image_reward") == prompt_id
    assert prompt_key(mjhq_stem(prompt_id), "mjhq") == prompt_id
    assert prompt_key(image_stem(mjhq_stem(prompt_id), image_seed), "mjhq") == prompt_id


def test_a_prompt_without_an_id_goes_by_its_place() -> None:
    assert prompt_stem(12, "0012") == prompt_stem(12) == "0012__prompt_seed-000"
    assert prompt_key("0012__prompt_seed-000__image_seed-001", "image_reward") == "0012"


def test_an_id_too_long_for_a_file_name_is_refused() -> None:
    with pytest.raises(EcadError, match="too long"):
        prompt_stem(0, "ü" * 100)


def test_images_find_their_prompts() -> None:
    prompts = [Prompt("7", "a fox"), Prompt("0", "an owl")]
    files = ["0000__prompt_id-7__prompt_seed-000.png", "x.png", "0001__prompt_id-0__prompt_seed-000.png"]
    for mode in ("image_reward", "parti"):
        matched, unmatched = match_images(files, prompts, mode)  # type: ignore[arg-type]
        assert matched == [(Path(files[0]), prompts[0]), (Path(files[2]), prompts[1])]
        assert unmatched == [Path("x.png")]
