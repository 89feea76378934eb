"""Progress in other tools, tested by stand-ins for them."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import synthetic

from ecad.errors import EcadError
from ecad.genetic.search import search
from ecad.genetic.trackers import tracker, tracker_names


class Recorder:
    """What a tool was told: (candidates so far, values)."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}
        self.opened: dict[str, object] = {}
        self.is_open = False

    def log(self, values: dict[str, float], step: int) -> None:
        assert self.is_open
        self.rows.setdefault(step, {}).update(values)

    @contextmanager
    def open(self, **options: object):
        self.opened, self.is_open = options, True
        yield SimpleNamespace(log=self.log, add_scalar=lambda key, value, step: self.log({key: value}, step))
        self.is_open = False


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str) -> Recorder:
    recorder, module = Recorder(), ModuleType(name)
    module.SummaryWriter = lambda folder: recorder.open(folder=folder)  # type: ignore[attr-defined]
    module.start_run = module.init = recorder.open  # type: ignore[attr-defined]
    module.log_metrics = recorder.log  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if name == "tensorboard" else name, module)
    return recorder


@pytest.mark.parametrize("name", tracker_names())
def test_every_candidate_is_logged_and_the_run_ends(monkeypatch, tmp_path: Path, name: str) -> None:  # type: ignore[no-untyped-def]
    recorder, folder = stand_in(monkeypatch, name), tmp_path / "study"
    with tracker(name, folder) as log:
        study = search(synthetic.problem(), synthetic.evaluator(), generations=2, population_size=4, on_progress=log)
    assert not recorder.is_open
    assert list(recorder.rows) == list(range(1, len(study.candidates) + 1))
    last = recorder.rows[len(study.candidates)]
    assert last["hypervolume"] == study.history[-1].hypervolume
    assert last["images"] == study.history[-1].images
    assert "study" in str(recorder.opened)


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(EcadError, match="mlflow is not installed: run pip install mlflow"), tracker("mlflow", tmp_path):
        pass
    with (
        pytest.raises(EcadError, match="tracker 'comet' is unknown: expected one of mlflow, tensorboard, wandb"),
        tracker("comet", tmp_path),
    ):
        pass
