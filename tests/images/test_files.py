"""Finding and reading pictures, and telling one schedule's from several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecad.errors import EcadError
from ecad.images.files import by_schedule, image_files, read_image, read_images
from ecad.images.folder import is_whole


def touch(root: Path, *names: str) -> list[Path]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return [root / name for name in names]


def test_pictures_are_found_in_order_and_nothing_else(tmp_path: Path) -> None:
    pictures = touch(tmp_path, "a.png", "b/c.JPG", "b/d/e.webp", "f.jpeg")
    touch(tmp_path, "scores.json", ".a.png.tmp", ".hidden/x.png", "b/.x.png", "note.txt")
    assert sorted(image_files(tmp_path)) == sorted(pictures)
    assert image_files(tmp_path) == image_files(tmp_path)


@pytest.mark.parametrize(
    ("name", "told"), [("a.png", "found a file"), ("no", "found nothing"), ("empty", "found none")]
)
def test_a_folder_without_pictures_is_refused(tmp_path: Path, name: str, told: str) -> None:
    touch(tmp_path, "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EcadError, match=f"{name}: expected .*{told}"):
        image_files(tmp_path / name)


def test_pictures_of_any_mode_become_rgb_and_keep_their_order(tmp_path: Path) -> None:
    files = []
    for value, mode in enumerate(("RGB", "L", "RGBA", "P", "1")):
        files.append(tmp_path / f"{9 - value}.png")
        Image.new(mode, (6, 4), 1 if mode == "1" else 0).save(files[-1])
    images = read_images(files)
    assert [image.shape for image in images] == [(4, 6, 3)] * 5
    assert all(image.dtype == np.uint8 for image in images)
    assert [int(image.max()) for image in images] == [0, 0, 0, 0, 255]


def test_a_torn_picture_is_named(tmp_path: Path) -> None:
    file = tmp_path / "torn.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
    whole = file.read_bytes()
    for length in (0, 10, len(whole) // 2):
        file.write_bytes(whole[:length])
        with pytest.raises(EcadError, match=r"torn\.png: cannot read this image"):
            read_image(file)


@pytest.mark.parametrize(
    ("names", "schedules"),
    [
        (["0.png", "1.png"], ["."]),
        (["animals/a.png", "food/b.png"], ["."]),
        (["megabatch_0/0.png", "megabatch_1/3000.png", "manifest.jsonl"], ["."]),
        (["x/m/0.png", "y/m/0.png"], ["x", "y"]),
        (["x/m/0.png", "x/manifest.jsonl", "y/m/1.png", "y/manifest.jsonl"], ["x", "y"]),
        (["k/x/0.png", "k/x/manifest.jsonl", "k/y/1.png", "k/y/manifest.jsonl"], ["k/x", "k/y"]),
        (["x/0.png", "0.png"], [".", "x"]),
    ],
)
def test_several_schedules_are_told_apart(tmp_path: Path, names: list[str], schedules: list[str]) -> None:
    touch(tmp_path, *names)
    if schedules == ["."]:
        assert by_schedule(tmp_path) == {tmp_path: image_files(tmp_path)}
        return
    with pytest.raises(EcadError, match=r"expected the images of one schedule, found .* or --each"):
        by_schedule(tmp_path)
    found = by_schedule(tmp_path, each=True)
    assert sorted(found) == [tmp_path / name for name in schedules]
    assert sorted(file for files in found.values() for file in files) == sorted(image_files(tmp_path))


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 2 - 1)
    with pytest.raises(EcadError, match=r"a\.png: cannot read this image: Image size \(4096 pixels\) exceeds limit"):
        read_image(tmp_path / "a.png")
    assert not is_whole(tmp_path / "a.png", (64, 64))


def test_images_of_one_colour_are_told(tmp_path: Path) -> None:
    for name, colour in (("a", "black"), ("b", "white"), ("c", "teal")):
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{name}.png")
    Image.linear_gradient("L").save(tmp_path / "d.png")
    files = [tmp_path / f"{name}.png" for name in "dabc"]
    with pytest.warns(RuntimeWarning, match=r"a\.png: one colour throughout, like 3 of 4 images"):
        assert len(read_images(files)) == 4
