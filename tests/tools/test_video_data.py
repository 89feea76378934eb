from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(TOOLS)
    import video_data

    yield video_data
    for name in ("video_data", "emoji_data"):
        del sys.modules[name]


def centres(clip: np.ndarray, background: tuple[int, ...]) -> np.ndarray:
    """Where the sprite is in each frame: (frames, 2), x and y."""
    seen = (clip != background).any(axis=3)
    return np.array([np.argwhere(one).mean(axis=0)[::-1] for one in seen])


@pytest.fixture
def sprite(data):  # type: ignore[no-untyped-def]
    """The left half of a square is red."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :32] = (255, 0, 0, 255)
    return data.Sprite("half", data.STYLE, pixels)


@pytest.mark.parametrize(("movement", "axis"), [("moving right", 0), ("moving down", 1)])
def test_a_clip_moves_as_its_caption_says(data, sprite, movement: str, axis: int) -> None:  # type: ignore[no-untyped-def]
    clip = data.render(sprite, "blue", movement, 40, (0, 0))
    assert clip.shape == (data.FRAMES, 64, 64, 3)
    moved = np.diff(centres(clip, data.BACKGROUNDS["blue"]), axis=0)
    assert moved[:, axis] == pytest.approx(22 / 7, abs=0.6)
    assert moved[:, 1 - axis] == pytest.approx(0, abs=0.1)


def test_a_clip_grows_and_turns_clockwise_in_place(data, sprite) -> None:  # type: ignore[no-untyped-def]
    grown = data.render(sprite, "blue", "growing", 40, (0, 0))
    area = (grown != data.BACKGROUNDS["blue"]).any(axis=3).sum(axis=(1, 2))
    assert (np.diff(area) > 0).all()
    turned = data.render(sprite, "blue", "turning", 40, (0, 0))
    at = centres(turned, data.BACKGROUNDS["blue"]) - 31.5
    assert at[0] == pytest.approx([-10, 0], abs=0.5)  # the red half is on the left,
    assert at[-1] == pytest.approx([0, -10], abs=0.5)  # and after a quarter turn above


def test_a_still_picture_is_where_it_should_be(data, sprite) -> None:  # type: ignore[no-untyped-def]
    first = data.render(sprite, "blue", "turning", 40, (2, 0))[0]
    assert (first[32, 17:31] == (255, 0, 0)).all()  # from 2 + 12 to 2 + 32, without its edge
    assert (first[32, 40:] == data.BACKGROUNDS["blue"]).all()


def test_held_out_pictures_are_in_no_training_clip(data) -> None:  # type: ignore[no-untyped-def]
    from ecad.builtin import prompts

    seen, held = data.video_combinations(held=False), data.video_combinations(held=True)
    assert len(seen) + len(held) == 30 * 10 * 7
    assert not {parts[:2] for parts in seen} & {parts[:2] for parts in held}
    for kind, combinations in (("search", seen), ("held_out", held)):
        found = prompts(kind, "EmojiVideoGenerator")
        assert len(set(found)) == 48
        assert set(found) <= {data.video_caption(*parts) for parts in combinations}
