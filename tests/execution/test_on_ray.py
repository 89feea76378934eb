"""The same on a real Ray cluster of several nodes, which come and go."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from python_path import python_path

from ecad.errors import EcadError
from ecad.execution import Executor, Failure, Task, WorkerSpec
from ecad.execution.on_ray import RayWorkers

ROOM = {"object_store_memory": 80 * 2**20}


def tasks(faults: dict[int, str], count: int = 8) -> list[Task]:
    return [Task(f"task {i}", (i, faults.get(i, ""))) for i in range(count)]


@pytest.fixture
def squares(cluster: Any, tmp_path: Path) -> Callable[..., Executor]:
    def make(count: int | None = None, notify: Callable[[str], None] = print, timeout: float = 60) -> Executor:
        spec = WorkerSpec("jobs:squares", {"folder": str(tmp_path)})
        return Executor(RayWorkers(spec, count), timeout, tmp_path / "log" / "failures.log", notify)

    return make


@pytest.fixture
def nodes(cluster: Any) -> Iterable[Callable[..., Any]]:
    """Add a node with one CPU; those that are left are taken away in the end."""
    added = []

    def add(**options: Any) -> Any:
        added.append(cluster.add_node(num_cpus=1, **ROOM, **options))
        cluster.wait_for_nodes()
        return added[-1]

    yield add
    for node in added:
        if node in cluster.list_all_nodes():
            cluster.remove_node(node)


def kill_while_both_work(cluster: Any, node: Any, folder: Path, said: list[str]) -> None:
    """Kill a node once the two tasks that wait have begun; they go on when one was missed: its worker outlives it."""
    while not all(list(folder.glob(f"{number}-*")) for number in (100, 101)):
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)
    while not any(line.startswith("late ") for line in said):
        time.sleep(0.05)
    (folder / "go on").touch()


def place(executor: Executor) -> set[str]:
    return {row["worker"].split(":")[0] for row in executor.summary()}


def test_faults_and_nodes_that_come_and_go(cluster: Any, nodes: Any, squares: Any, tmp_path: Path) -> None:
    nodes()
    second = nodes()
    said: list[str] = []
    faults = {0: "die 1", 1: "raise", 3: "hang 1", 5: "slow 1"}
    with squares(notify=said.append, timeout=6) as executor:
        assert dict(executor.run(tasks(faults))) == {i: i**2 for i in range(8)} | {
            1: Failure("ValueError: a bad day", 3)
        }
        assert len(place(executor)) == 2

        # A node is killed while both work.
        late = [Task(f"late {i}", (100 + i, "wait 1" if i < 2 else "")) for i in range(6)]
        killer = Thread(target=kill_while_both_work, args=(cluster, second, tmp_path, said), daemon=True)
        killer.start()
        assert dict(executor.run(late)) == {i: (100 + i) ** 2 for i in range(6)}
        killer.join()
        assert any(line.startswith("late ") and "try 1 of 3 failed" in line for line in said)

        # One that joins later is used.
        before = place(executor)
        nodes()
        results = []
        until = time.monotonic() + 60
        while place(executor) == before and time.monotonic() < until:
            results += [result for _, result in executor.run(tasks({}, 4))]
            time.sleep(0.1)
        assert len(place(executor) - before) == 1
        assert results[:4].count(9) == 1
        rows = executor.summary()
    assert sum(row["tasks"] for row in rows) == 7 + 6 + len(results)
    assert 'raise ValueError("a bad day")' in (tmp_path / "log" / "failures.log").read_text()


def test_unfit_nodes_are_left_out_with_one_line(cluster: Any, nodes: Any, squares: Any, tmp_path: Path) -> None:
    other = tmp_path / "other" / "diffusers-0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Name: diffusers\nVersion: 0.1\n")
    nodes()
    nodes(env_vars={"WITHOUT_THE_MODEL": "1"})
    nodes(env_vars={"PYTHONPATH": f"{python_path()}:{other.parent}"})
    said: list[str] = []
    with squares(notify=said.append) as executor:
        while len(said) < 2:
            assert len(list(executor.run(tasks({}, 2)))) == 2
            time.sleep(0.1)
        assert len(place(executor)) == 1
    assert len(said) == 2
    lines = sorted(said, key=lambda line: "weights" in line)
    assert "diffusers: expected" in lines[0]
    assert "as here, found 0.1" in lines[0]
    assert "expected the weights 'flux', found none" in lines[1]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nowhere", "`address`: expected auto or host:port, found 'nowhere'"),
        ("127.0.0.1:1", "`address` 127.0.0.1:1: no Ray cluster answers there"),
    ],
)
def test_a_wrong_address_is_one_line(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(EcadError, match=f"^{message}"):
        RayWorkers(WorkerSpec("jobs:squares", {}), None, address)


def test_without_ray_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EcadError, match=r"Ray is not installed; run pip install ray$"):
        RayWorkers(WorkerSpec("jobs:squares", {}), None)
