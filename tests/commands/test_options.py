"""Groups of flags: a command's parameter that is a dataclass stands for one flag per field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer

from ecad.commands.options import WorkerOptions, grouped_options
from ecad.execution.pool import WorkerSettings

CALLS: list[tuple[object, ...]] = []


@dataclass(frozen=True)
class Size:
    height: Annotated[int, typer.Option(min=1, help="Pixels.")]
    width: Annotated[int, typer.Option("--width", "-w", min=1, help="Pixels.")] = 64


@grouped_options
def draw(
    *,
    context: typer.Context,
    name: Annotated[str, typer.Argument()],
    size: Size,
    workers: WorkerOptions,
    loud: bool = False,
) -> None:
    """Draw."""
    CALLS.append((context.params["height"], name, size, workers, loud))


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(draw)
    CALLS.clear()

    def run(*arguments):
        typer.main.get_command(app).main(list(map(str, arguments)), standalone_mode=False)
        return CALLS[-1]

    return run


def test_fields_are_flags_and_arrive_as_one_object(run):
    given = ("a", "--height", 3, "-w", 4, "--workers", 2, "--task-timeout", 7, "--loud")
    assert run(*given) == (3, "a", Size(3, 4), WorkerOptions(workers=2, task_timeout=7.0), True)


def test_what_is_not_given_is_the_dataclasss_default(run):
    _, _, size, workers, loud = run("a", "--height", 3)
    assert (size, loud) == (Size(3), False)
    assert vars(workers) == vars(WorkerSettings())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("a",), "Missing option '--height'"),
        (("a", "--height", 0), "Invalid value for '--height'"),
        (("a", "--height", 3, "--depth", 2), "--depth"),
    ],
)
def test_a_field_is_checked_like_any_parameter(run, arguments, told):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - typer does not export its errors
        run(*arguments)
    assert told in caught.value.format_message()
    assert not CALLS


def test_a_command_is_called_with_flags_by_keyword(run):
    with pytest.raises(TypeError):
        draw("a")


def test_a_mistake_of_the_library_names_its_argument_and_a_command_its_flag(capsys, monkeypatch):
    from ecad.commands.main import main
    from ecad.errors import EcadError

    with pytest.raises(EcadError, match=r"^`address` names a Ray cluster: set `executor` to ray"):
        WorkerSettings(address="auto")
    monkeypatch.setattr("sys.argv", ["draw", "a", "--height", "3", "--address", "auto"])
    with pytest.raises(SystemExit) as ended:
        main(draw)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told == "ecad: --address names a Ray cluster: set --executor to ray as well, or leave it out\n"


# Flags that PyTorch's seeds bound (`check_seeds`), or whose numbers only end a loop or cut a list.
UNBOUNDED = {
    *("--seed", "--start-seed", "--seed-step"),
    *("--generations", "--patience", "--held-out", "--images", "--n", "--gate", "--num-blocks", "--num-steps"),
    *("--regen-if-not-n-images", "--exactly-n-images"),
}


def test_no_command_hands_on_a_number_without_bounds():
    from ecad.cli import app

    context = typer.main.get_command(app).make_context("ecad", ["doctor"])
    wrong = []
    for command in commands(context.command, context):
        for option in command.params:
            kind = str(option.type_descriptor)
            if "'float'" in kind and option.callback is None:
                wrong.append((command.name, option.opts, "no finite"))
            elif "'int'" in kind and option.opts[0] not in UNBOUNDED and None in (option.min, option.max):
                wrong.append((command.name, option.opts, "no range"))
    assert not wrong


def commands(group, context):
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield from commands(command, context) if hasattr(command, "list_commands") else [command]
