"""The lines of a dry run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ecad.commands.search_plan import show_plan


@pytest.mark.parametrize(
    ("executor", "told"), [(None, "memory: not known on this system"), (object(), "memory: not known on workers")]
)
def test_memory_that_is_not_known_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], executor: object, told: str
) -> None:
    """A system without the module `resource` was called a worker."""
    plan = SimpleNamespace(first=3, later=2, candidates=5, seconds_per_image=1.0, kept_bytes=None, process_bytes=None)
    monkeypatch.setattr("ecad.genetic.dry_run.plan_search", lambda *_: plan)
    monkeypatch.setattr("ecad.genetic.searches.part_of", lambda budget, parts: budget)
    search = SimpleNamespace(prompts=["a fox"], seeds=[0])
    task = SimpleNamespace(
        budget=SimpleNamespace(patience=3),
        settings_of=lambda *_: None,
        images=SimpleNamespace(search=search, validation=(), held_out=()),
        division=None,
        algorithm=SimpleNamespace(mode="fast"),
    )
    setup = SimpleNamespace(problem=SimpleNamespace(uncached_cost=1), fit=None, executor=executor)
    show_plan([setup], task, as_json=False)
    assert capsys.readouterr().out.splitlines()[-1] == told
