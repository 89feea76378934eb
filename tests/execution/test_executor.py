"""Faults: despite worker failures, each task is done exactly once or given up with its reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from python_path import python_path

from ecad.errors import EcadError
from ecad.execution import Executor, Failure, Task, WorkerSpec
from ecad.execution.local import LocalWorkers, split_gpus
from ecad.execution.pool import summary_by_host

Squares = Callable[..., Executor]


def tasks(faults: dict[int, str], count: int = 8) -> list[Task]:
    return [Task(f"task {i}", (i, faults.get(i, ""))) for i in range(count)]


@pytest.fixture
def squares(tmp_path: Path) -> Squares:
    def make(count: int = 2, timeout: float = 60, notify: Callable[[str], None] = print, **options: object) -> Executor:
        folder = tmp_path / "tries"
        folder.mkdir(exist_ok=True)
        spec = WorkerSpec("jobs:squares", {"folder": str(folder), **options})
        return Executor(LocalWorkers(spec, count, gpus_per_worker=0), timeout, tmp_path / "failures.log", notify)

    return make


def test_every_fault_ends_in_a_result_or_a_reason(squares: Squares, tmp_path: Path) -> None:
    faults = {1: "die 1", 2: "raise 2", 4: "hang 1", 5: "raise", 6: "die"}
    said: list[str] = []
    with squares(timeout=1.5, notify=said.append) as executor:
        results = list(executor.run(tasks(faults)))
        again = list(executor.run(tasks({}, 3)))
    assert sorted(place for place, _ in results) == list(range(8))
    found = dict(results)
    died = "its process ended (killed by signal SIGKILL)"
    expected = {i: i**2 for i in range(8)} | {5: Failure("ValueError: a bad day", 3), 6: Failure(died, 3)}
    assert found == expected
    assert sorted(again) == [(0, 0), (1, 1), (2, 4)]
    # Nothing is done more often than its faults ask for.
    tries = {i: len(list((tmp_path / "tries").glob(f"{i}-*"))) for i in range(8)}
    assert tries == {0: 2, 1: 3, 2: 4, 3: 1, 4: 2, 5: 3, 6: 3, 7: 1}
    log = (tmp_path / "failures.log").read_text()
    assert log.count('raise ValueError("a bad day")') == 5
    assert any(line.startswith("task 5: given up after 3 tries: ValueError: a bad day (see ") for line in said)
    assert "task 4: try 1 of 3 failed" in log
    assert "no answer within 1.5 s" in log
    rows = executor.summary()
    assert sum(row["tasks"] for row in rows) == 6 + 3
    assert sum(row["failed"] for row in rows) == 1 + 2 + 1 + 3 + 3
    [line] = summary_by_host(rows)
    assert "9 tasks" in line
    assert "10 tries failed" in line


def test_a_failed_task_is_tried_elsewhere(squares: Squares, tmp_path: Path) -> None:
    with squares() as executor:
        while len(executor.summary()) < 2:
            list(executor.run(tasks({}, 3)[1:]))
        assert dict(executor.run(tasks({0: "raise 1"}, 4)))[0] == 0
    first, second = (file.read_text() for file in sorted((tmp_path / "tries").glob("0-*")))
    assert first != second


def test_nothing_can_be_done_stops_the_work(squares: Squares) -> None:
    with (
        squares() as executor,
        pytest.raises(EcadError, match=r"^the first 3 tasks failed, each 3 times; the last: Val"),
    ):
        list(executor.run(tasks(dict.fromkeys(range(8), "raise"))))


def test_finish_tells_in_the_end_what_was_given_up(squares: Squares) -> None:
    done = []
    with (
        squares() as executor,
        pytest.raises(EcadError, match=r"^1 tasks were given up; the last: ValueError: a bad day"),
    ):
        done.extend(result for _, result in executor.finish(tasks({1: "raise"}, 4)))
    assert sorted(done) == [0, 4, 9]


def test_tasks_may_depend_on_results(squares: Squares) -> None:
    known: list[int] = []

    def source() -> Iterable[Task | None]:
        for i in range(3):
            yield Task("first", (i, ""))
        while len(known) < 3:
            yield None
        yield Task("last", (10 + sum(known), ""))

    with squares() as executor:
        for _, result in executor.run(source()):
            known.append(result)
    assert sorted(known) == [0, 1, 4, 225]


def test_a_run_that_is_broken_off_leaves_the_workers_usable(squares: Squares) -> None:
    with squares() as executor:
        first = executor.run(tasks({1: "slow 1", 2: "slow 1"}))
        next(first)
        first.close()
        assert sorted(executor.run(tasks({}, 4))) == [(0, 0), (1, 1), (2, 4), (3, 9)]


def test_a_worker_without_the_model_is_one_line(squares: Squares, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WITHOUT_THE_MODEL", "1")
    message = r"^no worker can do the work: \S+:\d+: expected the weights 'flux', found none \(see \S+\)$"
    with squares() as executor, pytest.raises(EcadError, match=message):
        executor.facts  # noqa: B018


def test_workers_that_die_while_they_load_are_not_started_for_ever(squares: Squares) -> None:
    with (
        squares(1, die_while_loading=True) as executor,
        pytest.raises(EcadError, match="3 in a row died while"),
    ):
        executor.facts  # noqa: B018


def test_workers_that_differ_do_not_work_together(squares: Squares, tmp_path: Path) -> None:
    said: list[str] = []
    with squares(2, notify=said.append, weights_of=str(tmp_path / "tries")) as executor:
        assert len(list(executor.run(tasks({}, 4)))) == 4
        while not said:
            list(executor.run(tasks({}, 1)))
    assert "weights: expected first as on the others, found second" in said[0]


@pytest.mark.parametrize(
    ("count", "each", "expected"),
    [(3, 1, ["a", "b", "c"]), (2, 2, ["a,b", "c,d"]), (5, 0.5, ["a", "a", "b", "b", "c"]), (3, 1 / 3, ["a"] * 3)],
)
def test_gpus_are_shared_out(count: int, each: float, expected: list[str]) -> None:
    assert [row["CUDA_VISIBLE_DEVICES"] for row in split_gpus(list("abcd"), count, each)] == expected


def test_more_workers_than_gpus_are_refused() -> None:
    with pytest.raises(EcadError, match=r"^`gpus_per_worker` 1: 5 workers need 5 GPUs, found 4; reduce"):
        split_gpus(list("abcd"), 5, 1)


def test_workers_die_with_their_driver(tmp_path: Path) -> None:
    code = (
        "from ecad.execution import *; from ecad.execution.local import LocalWorkers\n"
        "if __name__ == '__main__':\n"
        f"    workers = LocalWorkers(WorkerSpec('jobs:squares', {{'folder': {str(tmp_path)!r}}}), 1, 0)\n"
        "    list(Executor(workers, 60).run([Task('', (3, 'hang'))]))\n"
    )
    script = tmp_path / "driver.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": python_path()}
    driver = subprocess.Popen([sys.executable, script], env=environment)
    sign = tmp_path / "3-0"
    while not sign.exists() or not sign.read_text():
        time.sleep(0.05)
    worker = int(sign.read_text())
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    until = time.monotonic() + 60
    while _lives(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _lives(worker)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # One that has ended but that nobody has asked after is still listed.
    return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
