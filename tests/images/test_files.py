"""Finding and reading pictures, and telling one schedule's from several."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from ecad.errors import EcadError
from ecad.images.files import by_schedule, content_digest, find_images, image_files, read_image, read_images
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
    ("name", "told"), [("a.png", "this is a file"), ("no", "there is nothing"), ("empty", "there are no images")]
)
def test_a_folder_without_pictures_is_refused(tmp_path: Path, name: str, told: str) -> None:
    touch(tmp_path, "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EcadError, match=f"{name}: .*{told}"):
        image_files(tmp_path / name)


def test_pictures_of_any_mode_become_rgb_and_keep_their_order(tmp_path: Path) -> None:
    files = []
    for value, mode in enumerate(("RGB", "L", "RGBA", "P", "1")):
        files.append(tmp_path / f"{9 - value}.png")
        Image.new(mode, (6, 4), 1 if mode == "1" else 0).save(files[-1])
    images = read_images(files)
    assert [image.shape for image in images] == [(4, 6, 3)] * 5
    assert all(image.dtype == np.uint8 for image in images)
    # Where nothing covers it, what is behind a picture shows: white.
    assert [int(image.max()) for image in images] == [0, 0, 255, 0, 255]


def test_a_torn_picture_is_named(tmp_path: Path) -> None:
    file = tmp_path / "torn.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
    whole = file.read_bytes()
    for length in (0, 10, len(whole) // 2):
        file.write_bytes(whole[:length])
        with pytest.raises(EcadError, match=r"torn\.png: cannot read this image"):
            read_image(file)


# Pillow's formats raised all of these for mutants of `tools/robustness/torture.py`.
@pytest.mark.parametrize("error", [IndexError, NotImplementedError, RuntimeError, struct.error, TypeError])
def test_whatever_a_format_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(file)

    def fail(*_: object) -> None:
        raise error("out of range\nin frame 0")

    monkeypatch.setattr(PngImageFile, "load", fail)
    with pytest.raises(EcadError, match=r"^.*a\.png: cannot read this image: out of range$"):
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
    with pytest.raises(EcadError, match=r"expected the images of one schedule, found .* or set `each`"):
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


Y, X = np.mgrid[0:8, 0:8] * 32
GREY = (X / 2 + Y / 4).astype(np.uint8)
RGB = np.stack([GREY, GREY[::-1], GREY.T], axis=-1)
THREE = np.stack([GREY] * 3, axis=-1)
DEEP = GREY.astype(np.uint16) * 257


def saved(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("a.png", GREY, THREE),
        ("a.png", DEEP, THREE),
        ("a.tif", DEEP, THREE),
        ("a.pgm", Image.fromarray(DEEP), THREE),
        ("a.png", np.dstack([GREY, np.full_like(GREY, 255)]), THREE),
        ("a.tif", RGB, RGB),
        ("a.gif", GREY, THREE),
        ("a.bmp", RGB, RGB),
        ("a.tga", RGB, RGB),
        ("a.ppm", RGB, RGB),
        ("a.webp", np.dstack([RGB, np.full_like(GREY, 255)]), RGB),
        ("a.png", np.dstack([RGB, np.zeros_like(GREY)]), np.full_like(RGB, 255)),
        ("a.png", np.dstack([RGB, np.full_like(GREY, 51)]), np.round(RGB * 0.2 + 255 * 0.8).astype(np.uint8)),
        ("a.png", Image.fromarray(RGB).quantize(256), RGB),
        ("a.tif", Image.fromarray(RGB).convert("CMYK"), RGB),
    ],
)
def test_pictures_are_read_as_they_look(tmp_path: Path, name: str, image: object, expected: np.ndarray) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    found = read_image(saved(tmp_path / name, image, **options))  # type: ignore[arg-type]
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_picture_is_turned_as_its_exif_says_and_a_colour_may_be_transparent(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # show it turned by 90 degrees clockwise
    wide = RGB[:4]
    assert np.array_equal(read_image(saved(tmp_path / "a.png", wide, exif=exif)), np.rot90(wide, -1))
    red = np.zeros((4, 4, 3), np.uint8)
    red[:2, :, 0] = 200
    found = read_image(saved(tmp_path / "b.png", red, transparency=(200, 0, 0)))
    assert (found[:2] == 255).all()
    assert (found[2:] == 0).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("pixels", [GREY[:4], DEEP[:4]])
def test_grey_is_turned_too(tmp_path: Path, name: str, pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[274] = 6
    found = read_image(saved(tmp_path / name, pixels, exif=exif))
    assert found.shape == (8, 4, 3)
    assert np.abs(found.astype(int) - np.rot90(THREE[:4], -1)).max() <= 1


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_further_frames_are_told(tmp_path: Path, name: str) -> None:
    first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    files = [saved(tmp_path / "0.png", RGB), saved(tmp_path / name, first, save_all=True, append_images=[second])]
    with pytest.warns(RuntimeWarning, match=rf"{name}: has 2 frames, like 1 of 2 images .*: only the first is read"):
        images = read_images(files)
    assert [image.shape for image in images] == [RGB.shape] * 2
    assert read_images([]) == []


def test_white_is_zero_in_some_tiff_files(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.tif", DEEP, tiffinfo={262: 0})
    with Image.open(file) as image:
        assert image.tag_v2[262] == 0
    assert np.abs(read_image(file).astype(int) - (255 - THREE)).max() <= 1


@pytest.mark.parametrize("values", [np.float32(GREY) / 255, np.int32(GREY) * 1000])
def test_numbers_that_do_not_say_what_white_is_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(EcadError, match=r"a\.tif: cannot read this image: pixels of mode [FI] do not say"):
        read_image(saved(tmp_path / "a.tif", values))


def test_what_was_read_otherwise_before_has_another_digest(tmp_path: Path) -> None:
    import hashlib

    for name, image, is_same in (
        ("a.png", RGB, True),
        ("b.jpg", RGB, True),
        ("c.png", GREY, True),
        ("d.png", DEEP, False),
        ("e.png", np.dstack([RGB, GREY]), False),
    ):
        file = saved(tmp_path / name, image)
        assert (content_digest(file) == hashlib.sha256(file.read_bytes()).digest()) == is_same
    (tmp_path / "f.png").write_bytes(b"torn")
    assert content_digest(tmp_path / "f.png") == hashlib.sha256(b"torn").digest()


def test_links_are_followed_and_what_is_skipped_is_counted(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "refs", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    for i in range(3):
        saved(elsewhere / f"{i}.png", RGB)
    saved(folder / "a.JPEG", RGB)
    saved(folder / "no-suffix", RGB, format="PNG")
    saved(folder / "wrong.dat", RGB, format="JPEG")
    (folder / "val").symlink_to(elsewhere)
    (folder / "link.png").symlink_to(elsewhere / "0.png")
    (folder / "gone.png").symlink_to(elsewhere / "9.png")
    (elsewhere / "back").symlink_to(folder)
    touch(folder, "note.txt", "b.txt", "x.npz", "scores.json", "manifest.jsonl", ".hidden/x.png", "._a.png", "README")
    touch(folder, ".partial-1-of-2/.0.tmp", ".scores.json.unfinished")
    found = find_images(folder)
    names = [str(file.relative_to(folder)) for file in found.files]
    assert names == ["a.JPEG", "link.png", "no-suffix", "wrong.dat", "val/0.png", "val/1.png", "val/2.png"]
    expected = {".txt": 2, ".npz": 1, "no suffix": 1, "broken links": 1, "hidden": 2, "links back to a folder above": 1}
    assert found.skipped == expected
    assert found.kinds == {".png": 4, ".jpeg": 1, "no suffix": 1, ".dat": 1}
    told = found.told()
    assert told is not None
    assert told.startswith(f"{folder}: 7 images (4 .png, 1 .jpeg, 1 no suffix, 1 .dat); skipped: ")
    assert "2 hidden" in told


def test_a_folder_of_nothing_but_a_link_or_nothing_but_others(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    saved(tmp_path / "full/a.tif", RGB)
    (tmp_path / "only").mkdir()
    (tmp_path / "only/val").symlink_to(tmp_path / "full")
    assert [file.name for file in image_files(tmp_path / "only")] == ["a.tif"]
    assert find_images(tmp_path / "only").told() is None
    touch(tmp_path, "text/a.txt", "text/b.mpg")
    with pytest.raises(EcadError, match=r"there are no images in this folder; skipped: 1 \.txt, 1 \.mpg"):
        image_files(tmp_path / "text")
    with pytest.raises(EcadError, match="there is nothing; `ecad fetch mjhq` downloads it"):
        image_files(tmp_path / "references/mjhq")
