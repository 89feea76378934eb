"""The examples that need nothing but ecad run, the notebook is whole. (FastAPI and Jupyter are not installed here.)"""

from __future__ import annotations

import ast
import json
import runpy
import sys
from pathlib import Path

import pytest

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
