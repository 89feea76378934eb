from __future__ import annotations

import base64
import io
import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from example_results import HOSTILE, evolved
from parsed_page import Parsed
from PIL import Image

from ecad.errors import EcadError
from ecad.report import Results, save_images, write_report
from ecad.report.html import MAX_SIDE
from ecad.report.page import page
from ecad.schedules import CacheSchedule
from ecad.utils.files import as_file_name
from ecad.utils.plot_style import escaped

LOADING = ("src", "srcset", "href", "data", "poster", "action", "formaction", "background", "xlink:href", "ping")


def plot_data(text: str) -> dict:
    return json.loads(text.split('id="data">')[1].split("</script>")[0])


def test_nothing_is_loaded_from_anywhere(tmp_path: Path, results: Results) -> None:
    document = Parsed(page(results, tmp_path))
    for tag, attrs in document.tags:
        for name in LOADING:
            value = attrs.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
        assert "url(" not in (attrs.get("style") or "")
    assert not document.all("link")
    assert not document.all("iframe")
    styles = "".join(text for tag, text in document.texts if tag == "style")
    assert "url(" not in styles
    assert "@import" not in styles
    policy = next(a["content"] for a in document.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data: blob:;")
    assert "http" not in policy


def test_hostile_names_and_prompts_stay_text(tmp_path: Path, results: Results) -> None:
    document = Parsed(page(results, tmp_path))
    # The data, plotly and the page's own script: a prompt has not become a fourth.
    assert [attrs.get("type") for attrs in document.all("script")] == ["application/json", None, None]
    texts = [text.strip() for _, text in document.texts]
    assert f"A title {HOSTILE}" in texts
    assert texts.count(HOSTILE) >= 4  # table, grid, prompt, card
    alts = [attrs["alt"] for attrs in document.all("img")]
    assert f"{HOSTILE}, {HOSTILE}" in alts
    assert any(tag == "dt" and text == HOSTILE for tag, text in document.texts)


def test_the_data_of_the_plots_is_whole(tmp_path: Path, results: Results) -> None:
    data = plot_data(page(results, tmp_path))
    assert set(data["plots"]) == {
        *(
            f"{quality}/{cost}"
            for quality in ("held-out/judge", "held-out/similarity", "search")
            for cost in ("macs", "time")
        ),
        *("hypervolume", "guesses", "schedule/0"),
    }
    assert data["recolour"]["#0f766e"] == "#4fd1c1"


def test_data_cannot_end_its_script(tmp_path: Path, results: Results) -> None:
    text = page(results, tmp_path)
    data = text.split('id="data">')[1].split("</script>")[0]
    assert "alert" in data
    assert "<" not in data
    names = [trace.get("text") for trace in plot_data(text)["plots"]["held-out/judge/macs"]["data"]]
    assert [f"  {escaped(HOSTILE)}  "] in names


def test_pictures_stand_in_the_page_bit_for_bit(tmp_path: Path, results: Results) -> None:
    sources = [attrs["src"] for attrs in Parsed(page(results, tmp_path)).all("img")]
    expected = [
        base64.b64encode((tmp_path / entry.images[row]).read_bytes()).decode()
        for row in range(2)
        for entry in results.ordered()
    ]
    assert sources == [f"data:image/png;base64,{content}" for content in expected]


def test_large_pictures_are_shown_smaller(tmp_path: Path, results: Results) -> None:
    large = np.random.default_rng(0).integers(0, 256, (2, 300, 2 * MAX_SIDE, 3), dtype=np.uint8)
    entry = replace(results.entries[0], images=save_images(tmp_path, "large", large))
    source = Parsed(page(replace(results, entries=(entry,)), tmp_path)).all("img")[0]["src"]
    assert source is not None
    kind, content = source.split(";base64,")
    assert kind == "data:image/webp"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert image.size == (MAX_SIDE, 150)


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "text"])
def test_a_lost_picture_leaves_a_gap_and_is_told(tmp_path: Path, results: Results, damage: str) -> None:
    file = tmp_path / results.entries[0].images[1]
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes({"empty": b"", "cut": content[:-30], "text": b"<script>alert(1)</script>"}[damage])
    document = Parsed(page(results, tmp_path))
    assert len(document.all("img")) == 5
    assert ("span", "no image") in document.texts
    assert any("1 image could not be read: found-1: 2" in text for _, text in document.texts)


def test_the_script_knows_every_schedule(tmp_path: Path, results: Results) -> None:
    data = plot_data(page(results, tmp_path))
    size = evolved().recompute.size
    for point, entry in zip(data["points"], results.ordered(), strict=True):
        bits = np.unpackbits(np.frombuffer(base64.b64decode(point["bits"]), np.uint8), count=size)
        np.testing.assert_array_equal(bits, entry.schedule.to_bits())
        assert point["file"] == f"{as_file_name(entry.name)}.json"
    packed = zlib.decompress(base64.b64decode(data["candidates"]["bits"]))
    assert packed == b"".join(candidate.bits for candidate in results.candidates)
    assert data["candidates"]["names"] == ["gen_000_cand_000", "gen_001_cand_007"]


def test_a_schedule_that_is_more_than_bits_is_there_as_it_was(tmp_path: Path, results: Results) -> None:
    odd = replace(
        results.entries[0], schedule=evolved().replace(skeleton=evolved().skeleton, spare=np.ones((1, 6), bool))
    )
    data = plot_data(page(replace(results, entries=(odd,), candidates=()), tmp_path))
    assert CacheSchedule.from_json(data["points"][0]["own"]) == odd.schedule


def test_a_schedule_with_output_weights_is_in_the_page_as_it_is(tmp_path: Path, results: Results) -> None:
    plain = CacheSchedule(evolved().recompute, evolved().sites, "plain", forecast=True)
    fitted = plain.replace(name="fitted", output_weights=[[1.0]] * plain.num_steps)
    entry = results.ordered()[0]
    entries = [replace(entry, name=one.name, kind="found", schedule=one) for one in (plain, fitted)]
    points = plot_data(page(replace(results, entries=tuple(entries), candidates=()), tmp_path))["points"]
    own = {point["name"]: point["own"] for point in points}
    assert own["plain"] is None
    assert CacheSchedule.from_json(own["fitted"]) == fitted


def test_what_is_missing_is_said(tmp_path: Path, results: Results) -> None:
    document = Parsed(page(replace(results, missing=("No images.", HOSTILE)), tmp_path))
    assert {("li", "No images."), ("li", HOSTILE)} <= set(document.texts)


def test_the_numbers_are_those_of_the_table(tmp_path: Path, results: Results) -> None:
    cells = [text for tag, text in Parsed(page(results, tmp_path)).texts if tag == "td"]
    assert {"3.20×", "26.50 [25.25, 27.75]", "1.250 G"} <= set(cells)


@pytest.mark.parametrize("left", ["nothing", "pictures", "entries", "history and candidates"])
def test_an_unfinished_search_gives_the_page_of_what_is_there(tmp_path: Path, results: Results, left: str) -> None:
    parts: dict = {"entries": (), "candidates": (), "history": (), "pictures": (), "settings": {}}
    if left == "pictures":
        parts["pictures"] = results.pictures
    elif left == "entries":
        parts["entries"] = [replace(entry, images=(), scores={}, search_quality=None) for entry in results.entries]
    elif left == "history and candidates":
        parts |= {"history": results.history, "candidates": results.candidates}
    text = page(replace(results, **parts), tmp_path)
    document = Parsed(text)
    texts = {text for _, text in document.texts}
    assert "No found schedule has a held-out score yet." in texts
    assert ("No schedule has been measured yet." in texts) == (left != "entries")
    assert ("search/macs" in plot_data(text)["plots"]) == (left == "history and candidates")


def test_the_whole_report(tmp_path: Path, results: Results) -> None:
    written = write_report(results, tmp_path)
    names = ["report.html", "front.png", "front.svg", "table.md", "grid.png"]
    names += [f"schedules/{as_file_name(entry.name)}.json" for entry in results.ordered()]
    assert [path.relative_to(tmp_path).as_posix() for path in written] == names
    assert all(path.is_file() for path in written)
    assert CacheSchedule.load(written[-1]) == results.ordered()[-1].schedule
    with Image.open(tmp_path / "grid.png") as grid:
        pixels = np.asarray(grid)
    # The third column's first picture is found-1's, flat 30.
    assert (pixels[100, -50] == 30).all()


def test_a_report_without_pictures_has_no_grid(tmp_path: Path, results: Results) -> None:
    bare = replace(results, entries=[replace(entry, images=()) for entry in results.entries])
    assert tmp_path / "grid.png" not in write_report(bare, tmp_path)


def test_a_lost_picture_leaves_its_cell_empty_in_the_grid(tmp_path: Path, results: Results) -> None:
    (tmp_path / results.entries[0].images[0]).unlink()
    write_report(results, tmp_path)
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.getpixel((grid.width - 50, 100)) == (236, 236, 238)


def test_missing_packages_are_named_before_any_work(
    tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecad.utils.extras.REPORT_PACKAGES", ("plotly", "no_such_package"))
    with pytest.raises(EcadError, match=r"a report needs no_such_package: run pip install no_such_package$"):
        write_report(results, tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_videos_have_a_player_and_strips_and_images_have_none(tmp_path: Path, results: Results) -> None:
    assert "data-frames" not in page(results, tmp_path).split("<script")[0]
    frames = np.arange(3 * 400 * 300 * 3, dtype=np.uint32).reshape(3 * 400, 300, 3).astype(np.uint8)
    entries = tuple(
        replace(entry, images=save_images(tmp_path, f"video of {entry.kind}", [frames, frames]))
        for entry in results.entries
    )
    first, second = results.pictures
    videos = replace(results, entries=entries, pictures=(replace(first, frames=3), second))
    text = page(videos, tmp_path)
    assert text.count('data-frames="3"') == len(entries)
    assert text.count('<details class="strips" data-row="0" open>') == 1
    ids = [attrs["id"] for _, attrs in Parsed(text).tags if "id" in attrs]
    assert "play-videos" in ids
    assert len(set(ids)) == len(ids)
    # Frames keep their size limit each, and whole pixels; an image of the same size is limited as a whole.
    shown = [str(attrs["src"]).split(",")[1] for attrs in Parsed(text).all("img")]
    sizes = {Image.open(io.BytesIO(base64.b64decode(content))).size for content in shown}
    assert sizes == {(192, 3 * 256), (64, 256)}
