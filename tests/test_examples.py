"""The examples that need nothing but ecad run, the notebook is whole. (FastAPI and Jupyter are not installed here.)"""

from __future__ import annotations

import ast
import json
import runpy
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ecad
from ecad.schedules import CacheSchedule
from ecad.schedules.provenance import made_for

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_schedule_says_where_it_comes_from() -> None:
    schedule = CacheSchedule.load(EXAMPLES / "schedule.json")
    provenance, resampled = made_for(schedule.attributes)
    assert provenance is not None
    assert (provenance.model, resampled) == ("EmojiImageGenerator", None)
    assert set(provenance.held_out) == {"psnr", "judge"}


def test_the_video_pipeline_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "video.gif"
    monkeypatch.setattr(sys, "argv", ["video_pipeline.py", "--steps", "4", "--output", str(video)])
    runpy.run_path(str(EXAMPLES / "video_pipeline.py"), run_name="__main__")
    assert "8 calls computed, 8 reused" in capsys.readouterr().out
    assert video.stat().st_size > 1000


def test_the_notebook_was_run_and_is_small() -> None:
    file = EXAMPLES / "notebook.ipynb"
    assert file.stat().st_size < 200_000
    notebook = json.loads(file.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for place, cell in enumerate(cells, start=1):
        ast.parse("".join(cell["source"]))
        assert cell["execution_count"] == place
        assert all(output["output_type"] in ("stream", "execute_result") for output in cell["outputs"])


@pytest.fixture(scope="module")
def serve() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / "serve_fastapi.py"))


@pytest.fixture(scope="module")
def server(serve: dict[str, Any]) -> Any:
    generator = replace(ecad.get_image_generator("EmojiImageGenerator"), steps=4)
    return serve["Server"](generator, serve["example_front"](generator), most_waiting=2)


def test_requests_have_their_own_tier_on_one_pipeline(server: Any) -> None:
    gone = threading.Event()
    images = {tier: server.make("a fox", 3, tier, gone) for tier in (None, 2.0, 1.0)}
    assert images[1.0] == images[None] != images[2.0]
    for tier in (2.0, None, 2.0):
        assert server.make("a fox", 3, tier, gone) == images[tier]
    told = server.metrics()
    assert 'ecad_images_total{speedup="2",outcome="made"} 3' in told
    assert 'ecad_images_total{speedup="none",outcome="made"} 2' in told
    with pytest.raises(ecad.EcadError, match="no schedule"):
        server.make("a fox", 3, 50.0, gone)


def test_requests_that_come_together_get_the_images_they_would_get_alone(server: Any) -> None:
    tiers = [None, 2.0, 1.0]
    alone = [server.make("a crab", seed, tier, threading.Event()) for seed, tier in enumerate(tiers)]
    with ThreadPoolExecutor(3) as threads:
        together = [
            threads.submit(server.make, "a crab", seed, tier, threading.Event()) for seed, tier in enumerate(tiers)
        ]
        assert [one.result() for one in together] == alone


def test_who_hangs_up_stops_the_image_and_spoils_no_other(serve: dict[str, Any], server: Any) -> None:
    expected = server.make("a fox", 3, 2.0, threading.Event())
    gone, forwards = threading.Event(), []
    denoiser = server.generator.pipe.transformer

    def hang_up(*_: object) -> None:
        forwards.append(1)
        if len(forwards) > 1:
            gone.set()

    hook = denoiser.register_forward_pre_hook(hang_up)
    with pytest.raises(serve["Cancelled"]):
        server.make("a fox", 3, 2.0, gone)
    hook.remove()
    assert len(forwards) < 4
    assert server.make("a fox", 3, 2.0, threading.Event()) == expected
    assert 'outcome="cancelled"} 1' in server.metrics()


def test_too_many_waiting_requests_are_refused(serve: dict[str, Any], server: Any) -> None:
    with server._turn, ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(server.make, "a fox", 3, None, threading.Event()) for _ in range(2)]
        while server.waiting < 2:
            pass
        with pytest.raises(serve["Busy"]):
            server.make("a fox", 3, None, threading.Event())
        server._turn.release()
        assert len({one.result() for one in waiting}) == 1
        server._turn.acquire()
