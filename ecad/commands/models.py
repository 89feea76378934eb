"""`ecad models`: what can be asked for by name, and what a schedule can run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecad.commands.main import finish

if TYPE_CHECKING:
    from ecad.sites.families import BlockList, Family


def models(as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False) -> None:
    """List the image generators, and the families of transformers with their sites.

    A transformer of no family listed is searched for submodules with the usual names; sites can also be named by hand.
    """
    from ecad.image_generators import image_generators
    from ecad.sites.families import FAMILIES

    generators, families = image_generators(), [_facts(family) for family in FAMILIES]
    lines = ["image generators, and where each finds its weights:"]
    lines += [f"  {name:28} {where}" for name, where in generators.items()]
    lines += ["", "families of transformers, and their sites (any other diffusers transformer is searched for them);"]
    lines += ["tests run each of them with tiny random weights:"]
    lines += [line for family in families for line in _lines(family)]
    finish({"image_generators": generators, "families": families}, "\n".join(lines), as_json)


def _facts(family: Family) -> dict[str, object]:
    return {
        "name": family.name,
        "transformers": list(family.transformers),
        "blocks": [_block_facts(block_list) for block_list in family.block_lists],
        "tested_pipelines": list(family.tested),
    }


def _block_facts(block_list: BlockList) -> dict[str, object]:
    from ecad.sites.readers import readers

    key = block_list.block_key.format(path=block_list.path, index="N")
    components = [block_list.prefix + name for name in block_list.components]
    found = readers([(key, component) for component in components])
    return {
        "block": key,
        "components": components,
        "skipped_with": {components[i]: components[reader] for i, reader in enumerate(found) if reader >= 0},
    }


def _lines(family: dict[str, Any]) -> list[str]:
    lines = [f"  {family['name']:28} {', '.join(family['transformers'])}"]
    for blocks in family["blocks"]:
        lines.append(f"    {blocks['block']}: {', '.join(blocks['components'])}")
        if skipped := blocks["skipped_with"]:
            lines.append(f"      {' and '.join(skipped)} skipped where {next(iter(skipped.values()))} is reused")
    return [*lines, f"    tested in {', '.join(family['tested_pipelines']) or 'a hand-written loop'}"]
