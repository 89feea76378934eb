"""The pages in a real browser; screenshots stay in build/screenshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import click_point, opened
from example_results import HOSTILE, evolved, made
from finished_study import evaluator, model

from ecad.genetic.live import live_page
from ecad.genetic.search import search
from ecad.report import Results
from ecad.report.comparison import read_comparison, write_comparison
from ecad.report.figures import MAX_POINTS
from ecad.report.page import write_page
from ecad.schedules import CacheSchedule
from ecad.schedules.figure import schedule_figure

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"

# The page as it is when it is opened, but for where the keyboard is.
_RESET = """() => {
  for (const input of document.querySelectorAll("input[type=radio]"))
    if (!input.checked && (input.defaultChecked || (input.name === "component" && !input.value))) input.click();
  for (const [id, name] of [["chosen", "found-1"], ["partner", "uncached"]]) {
    const select = document.getElementById(id);
    const option = [...select.options].find(one => one.text.split(" (")[0] === name);
    if (select.value === option.value) continue;
    select.value = option.value;
    select.dispatchEvent(new Event("change"));
  }
  scrollTo(0, 0);
}"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the example results."""
    folder = tmp_path_factory.mktemp("report")
    write_page(made(folder), folder, folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def opened_once(browser: Any, file: Path) -> Iterator[tuple[Any, list[str]]]:
    wrong: list[str] = []
    page = opened(browser, file, wrong)
    yield page, wrong
    page.context.close()


@pytest.fixture
def page(opened_once: tuple[Any, list[str]]) -> Iterator[Any]:
    """The page of the example results, as if just opened: drawing it takes seconds, so the tests share it."""
    page, wrong = opened_once
    page.evaluate(_RESET)
    yield page
    assert wrong == []


def title(page: Any) -> str:
    return page.locator("#chosen-title").inner_text()


def shown_cells(page: Any) -> np.ndarray:
    return np.array(page.evaluate("document.getElementById('schedule-plot').data[0].z.map(row => [...row])"))


def test_points_are_picked_by_mouse_and_compared(page: Any) -> None:
    assert title(page).startswith("found-1")
    click_point(page, 1)
    assert HOSTILE in title(page)
    assert page.locator("#partner option:checked").inner_text() == "uncached"
    click_point(page, 2, "Shift")
    assert HOSTILE in title(page)
    heads = page.locator(".facts thead th").all_inner_texts()
    assert heads == [HOSTILE, "found-1"]
    assert page.locator(".facts tbody tr").filter(has_text="MAC reduction").locator("td").all_inner_texts() == [
        "2.00×",
        "3.20×",
    ]
    assert page.locator(".pairs .difference").count() == 2
    # Neither of the two is the uncached one, which stands there all the same.
    assert page.locator(".pairs .which div").all_inner_texts() == ["uncached", "found-1", HOSTILE, "difference × 8"]
    page.locator("#look label").filter(has_text="difference").click()
    every_2 = np.array([[1, 0, 1, 0], [1, 0, 1, 0]])
    np.testing.assert_array_equal(shown_cells(page), every_2 - np.array([[1, 0, 1, 0], [1, 0, 0, 0]]))


def test_points_are_picked_by_keyboard_and_said(visit: Callable[..., Any], file: Path) -> None:
    page = visit(file)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "front-plot":
            break
    page.keyboard.press("ArrowRight")
    assert page.locator("#said").inner_text().startswith(f"{HOSTILE}: MACs 2.000 G")
    assert page.locator("#said").get_attribute("aria-live") == "polite"
    page.keyboard.press("ArrowRight")
    assert title(page).startswith("uncached")
    page.locator("#chosen").focus()
    page.keyboard.press("End")
    assert title(page).startswith("found-1")


def test_pictures_stand_beside_the_uncached_ones(page: Any) -> None:
    loaded = page.locator(".pairs img").evaluate_all("all => all.map(one => [one.alt, one.naturalWidth])")
    # A row of the uncached ones, one of the chosen, and both laid over each other.
    assert loaded[:2] == [["a 3d crab, uncached", 8], ["a 3d crab, found-1", 8]]
    assert len(loaded) == 8
    assert {width for _, width in loaded} == {8}


def test_the_download_of_one_that_repeats_says_nothing_of_forecasts(page: Any, tmp_path: Path) -> None:
    page.locator("#chosen").select_option(label="uncached")
    with page.expect_download() as started:
        page.locator("#download").click()
    started.value.save_as(tmp_path / "got.json")
    got = CacheSchedule.load(tmp_path / "got.json")
    assert got.recompute.all()
    assert not got.forecast
    assert got.output_products is None


@pytest.mark.parametrize("chosen", ["found-1", "gen_001_cand_007"])
def test_the_download_is_the_schedule(page: Any, tmp_path: Path, chosen: str) -> None:
    if chosen != "found-1":
        page.locator("#quality label").filter(has_text="Search").click()
        click_point(page, 4)
        assert title(page).startswith(chosen)
    with page.expect_download() as started:
        page.locator("#download").click()
    started.value.save_as(tmp_path / "got.json")
    got = CacheSchedule.load(tmp_path / "got.json")
    assert started.value.suggested_filename == f"{chosen}.json"
    if chosen == "found-1":
        assert got == evolved().replace(name="found-1")
    np.testing.assert_array_equal(got.recompute, evolved().recompute)
    assert got.forecast
    np.testing.assert_array_equal(got.output_products, evolved().output_products)
    assert f'load("{chosen}.json")' in page.locator(".code code").inner_text()


def test_the_map_is_the_one_of_the_library(page: Any) -> None:
    for component in ("all", *evolved().components):
        page.locator("#component label").filter(has_text=component).click()
        for look in ("recomputed", "age"):
            page.locator("#look label").filter(has_text=look).click()
            expected = schedule_figure(evolved(), None if component == "all" else component, ages=look == "age").data
            np.testing.assert_allclose(shown_cells(page), expected[0].z, rtol=1e-6)
            bars = page.evaluate("(({ data }) => [data[1].y, data[2].x])(document.getElementById('schedule-plot'))")
            np.testing.assert_allclose(bars[0], expected[1].y)
            np.testing.assert_allclose(bars[1], expected[2].x)


def test_axes_and_generations_are_switched(page: Any) -> None:
    axis = "document.getElementById('front-plot').layout.xaxis.title.text"
    page.locator("#cost label").filter(has_text="time").click()
    assert page.evaluate(axis) == "measured time per image, uncached = 1"
    assert page.locator("#generations").is_hidden()
    page.locator("#cost label").filter(has_text="MACs").click()
    page.locator("#quality label").filter(has_text="Search").click()
    new = "[...document.getElementById('front-plot').data[0].y]"
    assert page.evaluate(new) == [25, 27.5]
    page.locator("#generation").focus()
    page.keyboard.press("Home")
    assert page.evaluate(new) == [25]
    assert page.locator("#generations output").inner_text() == "0"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(new) == [27.5]


def test_what_prompts_and_names_hold_does_nothing(page: Any) -> None:
    assert page.locator("script").count() == 3
    for i in range(3):
        click_point(page, i)
    assert page.locator(".pairs figcaption").nth(1).inner_text() == HOSTILE


def test_all_candidates_have_every_known_cost(visit: Callable[..., Any], tmp_path: Path, results: Results) -> None:
    priced = [
        [replace(one, expected_ns=2_000_000 * i, kept_bytes=3_000_000 * i) for i, one in enumerate(several, start=1)]
        for several in (results.entries, results.candidates)
    ]
    write_page(replace(results, entries=priced[0], candidates=priced[1]), tmp_path, tmp_path / "priced.html")
    page = visit(tmp_path / "priced.html")
    page.locator("#quality label").filter(has_text="Search").click()
    for name, expected in (("time (expected)", [2, 4]), ("memory", [3, 6])):
        page.locator("#cost label").filter(has_text=name).click()
        assert page.evaluate("[...document.getElementById('front-plot').data[0].x]") == expected
    page.locator("#any").fill("gen_001_cand_007")
    assert title(page).startswith("gen_001_cand_007")
    page.locator("#schedule-plot .main-svg").first.wait_for()
    rows = page.locator(".facts tbody tr").all_inner_texts()
    assert "time (expected)\t4.0 ms\t4.0 ms" in rows
    assert "cache memory\t6 MB\t6 MB" in rows


def test_a_large_search_is_thinned_but_whole(visit: Callable[..., Any], tmp_path: Path, results: Results) -> None:
    many = tuple(replace(results.candidates[0], macs=10**9 + i, quality=i % 7, number=i) for i in range(5000))
    write_page(replace(results, candidates=many), tmp_path, tmp_path / "large.html")
    page = visit(tmp_path / "large.html")
    page.locator("#quality label").filter(has_text="Search").click()
    assert page.evaluate("document.getElementById('front-plot').data[0].x.length") == MAX_POINTS
    page.locator("#any").fill("gen_000_cand_4998")
    assert title(page).startswith("gen_000_cand_4998")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_looks_well_and_prints(visit: Callable[..., Any], file: Path, scheme: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page = visit(file, color_scheme=scheme)
    height = page.evaluate("document.body.scrollHeight")
    page.set_viewport_size({"width": 1280, "height": height})
    for plot in page.locator(".card .plot").all():
        plot.locator(".main-svg").first.wait_for()
    page.screenshot(path=SCREENSHOTS / f"report-{scheme}.png", full_page=True)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(252, 252, 250)", "dark": "rgb(20, 20, 21)"}[scheme]
    nameless = """all => all.filter(one => !one.labels?.length && !one.ariaLabel && !one.textContent).length"""
    assert page.locator("input, select, button").evaluate_all(nameless) == 0
    if scheme == "dark":
        assert page.pdf(path=SCREENSHOTS / "report.pdf").startswith(b"%PDF")


def test_all_is_drawn_without_scrolling_and_nothing_is_empty(visit: Callable[..., Any], file: Path) -> None:
    page = visit(file, viewport={"width": 1400, "height": 900})
    for plot in page.locator(".card .plot").all():
        plot.locator(".main-svg").first.wait_for()
    chart, heat, detail = (page.locator(f"#{name}").bounding_box() for name in ("front-plot", "heat", "detail"))
    assert heat["y"] - (chart["y"] + chart["height"]) < 80
    assert abs(detail["y"] + detail["height"] - heat["y"] - heat["height"]) < 400


def test_the_front_is_handed_out(visit: Callable[..., Any], tmp_path: Path, results: Results) -> None:
    (tmp_path / "front.json").write_text('{"a": 1}\n')
    write_page(results, tmp_path, tmp_path / "report.html")
    page = visit(tmp_path / "report.html")
    with page.expect_download() as started:
        page.get_by_text("Download front.json").click()
    started.value.save_as(tmp_path / "got.json")
    assert started.value.suggested_filename == "front.json"
    assert (tmp_path / "got.json").read_text() == '{"a": 1}\n'


def test_it_fits_a_phone(visit: Callable[..., Any], file: Path) -> None:
    page = visit(file, viewport={"width": 380, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_no_search_no_entries_no_error(visit: Callable[..., Any], tmp_path: Path, results: Results) -> None:
    bare = replace(results, entries=(), candidates=(), history=(), guesses=(), pictures=(), missing=("Nothing yet.",))
    write_page(bare, tmp_path, tmp_path / "bare.html")
    assert "Nothing yet." in visit(tmp_path / "bare.html").locator("main").page.inner_text("header")
    write_page(replace(results, entries=()), tmp_path, tmp_path / "cloud.html")
    visit(tmp_path / "cloud.html").locator("#front-plot .main-svg").first.wait_for()


def test_images_are_compared(visit: Callable[..., Any], images: Path) -> None:
    (path,) = write_comparison(read_comparison(images), images)
    page = visit(path)
    page.locator("#differences").check()
    assert page.locator(".difference").count() == 4
    page.screenshot(path=SCREENSHOTS / "comparison.png", full_page=True)
    page.locator("#differences").uncheck()
    assert page.locator(".difference").count() == 0
    assert page.locator(".laid img").count() == 6


def test_the_live_page_goes_on_with_the_search(visit: Callable[..., Any], tmp_path: Path) -> None:
    search(model(), evaluator(), tmp_path, generations=1, population_size=5).close()
    with live_page(tmp_path, state=lambda: "Running: 2 min left.") as url:
        page = visit(url)
        page.get_by_text("Running: 2 min left.").wait_for()
        page.locator("#chosen").select_option(label="uncached")
        search(model(), evaluator(), tmp_path, generations=3, population_size=5).close()
        page.get_by_text("3 generations").wait_for()
        page.locator("#chosen-title").get_by_text("uncached").first.wait_for()
        assert title(page).startswith("uncached")
