from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(TOOLS)
    import emoji_data

    yield emoji_data
    del sys.modules["emoji_data"]


def test_captions_name_what_is_given(data) -> None:  # type: ignore[no-untyped-def]
    assert data.caption("crab", "3d", "blue") == "a 3d crab on a blue background"
    assert data.caption("owl", None, "orange") == "an owl on an orange background"
    assert data.caption(None, "google", None) == "a google emoji"
    assert data.caption("unicorn", None, None) == "a unicorn"


def test_about_a_tenth_of_all_combinations_is_held_out_and_no_emoji_altogether(data) -> None:  # type: ignore[no-untyped-def]
    seen, held = data.combinations(held=False), data.combinations(held=True)
    assert len(seen) + len(held) == len(data.names()) * 3 * 10
    assert not set(seen) & set(held)
    assert 0.08 < len(held) / len(seen + held) < 0.12
    assert {(name, style) for name, style, _ in seen} >= {(name, style) for name, style, _ in held}


def test_built_in_prompts_are_of_their_kind(data) -> None:  # type: ignore[no-untyped-def]
    from ecad.builtin import prompts

    for kind, held in (("search", False), ("held_out", True)):
        captions = {data.caption(*parts) for parts in data.combinations(held=held)}
        assert set(prompts(kind)) <= captions


def test_a_sprite_is_pasted_where_it_should_be(data) -> None:  # type: ignore[no-untyped-def]
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :32] = (255, 0, 0, 255)
    sprite = data.Sprite("half", "flat", pixels)
    picture = data.compose(sprite, "blue", size=50)
    background = data.BACKGROUNDS["blue"]
    assert (picture[:7] == background).all()
    assert (picture[20, 10] == (255, 0, 0)).all()
    assert (picture[20, 50] == background).all()
    flipped = data.compose(sprite, "blue", size=50, flip=True)
    assert (flipped[20, 10] == background).all()
    assert (flipped[20, 50] == (255, 0, 0)).all()
