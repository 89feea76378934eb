"""`ecad report`: the page, plots and tables of what a demo or search has left in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ecad.commands import console, finish, main


def report(
    folder: Annotated[Path, typer.Argument(help="Folder with results.json.")],
    text: Annotated[bool, typer.Option(help="Print the table; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the files as JSON.")] = False,
) -> None:
    """Write the report of a folder of results again."""
    from ecad.report import Results, rich_table, write_report

    results = Results.load(folder)
    if text:
        console.print(rich_table(results))
        return
    files = [str(path) for path in write_report(results, folder)]
    finish({"files": files}, f"page: {files[0]}", as_json)


if __name__ == "__main__":
    main(report)
