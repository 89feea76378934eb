"""One schedule for a pipeline with several denoisers: its blocks are named after their denoiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ecad.errors import ScheduleError

if TYPE_CHECKING:
    from ecad.sites.names import Sites


def joint_sites(by_denoiser: Mapping[str, Sequence[tuple[str, str]]]) -> Sites:
    """The sites of several denoisers in one list.

    Args:
        by_denoiser: Name of each denoiser in the pipeline -> its sites.

    >>> joint_sites({"transformer": [("0", "ff")], "transformer_2": [("0", "ff")]})
    (('transformer.0', 'ff'), ('transformer_2.0', 'ff'))
    >>> joint_sites({"transformer": [("0", "ff")]})
    (('0', 'ff'),)
    """
    if len(by_denoiser) == 1:
        return tuple(next(iter(by_denoiser.values())))
    return tuple((f"{name}.{block}", component) for name, sites in by_denoiser.items() for block, component in sites)


def columns_of(sites: Sequence[tuple[str, str]], names: Sequence[str]) -> dict[str, tuple[np.ndarray, Sites]]:
    """Undo `joint_sites`.

    Args:
        sites: Sites of all denoisers.
        names: Names of the denoisers, at least two.

    Returns:
        denoiser -> the places of its sites, int (n,), and the sites by their own names.

    Raises:
        ScheduleError: A block is of no denoiser.

    >>> columns_of([("transformer.0", "ff"), ("transformer_2.0", "ff")], ["transformer", "transformer_2"])
    {'transformer': (array([0]), (('0', 'ff'),)), 'transformer_2': (array([1]), (('0', 'ff'),))}
    """
    owners = [block.split(".", 1)[0] if "." in block else "" for block, _ in sites]
    if odd := next((block for (block, _), owner in zip(sites, owners, strict=True) if owner not in names), None):
        raise ScheduleError(
            f"the pipeline has several denoisers ({', '.join(names)}), and the schedule does not name a block's",
            block=odd,
            expected=f"{names[0]}.{odd}",
            found=odd,
            remedy="name it, or give a dict with a schedule for any denoiser",
        )
    found = {}
    for name in names:
        places = np.array([place for place, owner in enumerate(owners) if owner == name], dtype=np.intp)
        own = tuple((sites[place][0].split(".", 1)[1], sites[place][1]) for place in places)
        if own:
            found[name] = places, own
    return found
