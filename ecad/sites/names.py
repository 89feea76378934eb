"""Sites, the (block, component) pairs of one denoiser, in gene order: the order of a schedule's columns.

Numbered blocks belong to the published format: "0", "1", ... and, after all of these, "single_0", "single_1", ...
All other models name their blocks by module path. Their sites stand in the order in which they are given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from ecad.errors import ScheduleError

Sites = tuple[tuple[str, str], ...]

PIXART_COMPONENTS = ("attn1", "attn2", "ff")
FLUX_COMPONENTS = ("full_attn", "full_ff", "full_ff_context")
FLUX_SINGLE_COMPONENTS = ("single_attn", "single_proj_mlp", "single_proj_out")

# A denoiser as a whole, for schedules of whole steps, which run on any denoiser.
DENOISER_SITES: Sites = (("denoiser", "output"),)

# In the published format, keys with this prefix stand beside a block's components without being components.
CUSTOM_PREFIX = "custom_compute_"

_NUMBERED = re.compile(r"(single_)?[0-9]+")
_RANK = {name: i for i, name in enumerate((*PIXART_COMPONENTS, *FLUX_COMPONENTS, *FLUX_SINGLE_COMPONENTS))}


def pixart_sites(num_blocks: int = 28) -> Sites:
    """The sites of a PixArt transformer (alpha or Sigma).

    >>> pixart_sites(2)
    (('0', 'attn1'), ('0', 'attn2'), ('0', 'ff'), ('1', 'attn1'), ('1', 'attn2'), ('1', 'ff'))
    """
    return tuple((block, component) for block in numbered_blocks(num_blocks) for component in PIXART_COMPONENTS)


def flux_sites(num_blocks: int = 19, num_single_blocks: int = 38) -> Sites:
    """The sites of a FLUX.1 transformer: all double blocks, then all single blocks.

    >>> [site for site in flux_sites(2, 1) if site[1] in ("full_attn", "single_attn")]
    [('0', 'full_attn'), ('1', 'full_attn'), ('single_0', 'single_attn')]
    """
    return tuple(
        (block, component)
        for block in numbered_blocks(num_blocks, num_single_blocks)
        for component in (FLUX_SINGLE_COMPONENTS if is_single(block) else FLUX_COMPONENTS)
    )


def numbered_blocks(num_blocks: int, num_single_blocks: int = 0) -> list[str]:
    """The block keys of the published format, in gene order."""
    return [*map(str, range(num_blocks)), *(f"single_{i}" for i in range(num_single_blocks))]


def is_numbered(block: str) -> bool:
    """Whether a block key is one of the published format, and not a module path."""
    return _NUMBERED.fullmatch(block) is not None


def is_single(block: str) -> bool:
    """Whether a block key belongs to the single blocks of FLUX."""
    return is_numbered(block) and block.startswith("single_")


def in_gene_order(components: Iterable[str]) -> list[str]:
    """Sort the components of one block in the published order; unknown ones come last, in their given order."""
    return sorted(components, key=lambda component: _RANK.get(component, len(_RANK)))


def by_block(sites: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Group sites by block.

    >>> by_block(pixart_sites(2))
    [('0', ['attn1', 'attn2', 'ff']), ('1', ['attn1', 'attn2', 'ff'])]
    """
    return [(block, [site[1] for site in group]) for block, group in groupby(sites, key=lambda site: site[0])]


def check_sites(sites: Iterable[Sequence[str]]) -> Sites:
    """Check that a schedule file can hold the sites.

    Returns:
        the sites as a tuple of pairs.

    Raises:
        ScheduleError: there are no sites, an entry is not a pair of names, a site occurs twice, a block's sites are not
            together, or numbered blocks are out of order or differ in their components.
    """
    pairs = [tuple(site) for site in sites]
    if not pairs:
        raise ScheduleError("no sites", expected="at least one (block, component) pair", found="none")
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(name, str) and name and name.isprintable() for name in pair):
            raise ScheduleError("not a site", expected="a pair of printable names (block, component)", found=repr(pair))
        if pair[1].startswith(CUSTOM_PREFIX):
            raise ScheduleError(f"{CUSTOM_PREFIX}* is not a component", block=pair[0], component=pair[1])
    checked: Sites = tuple((block, component) for block, component in pairs)
    _check_grouping(checked)
    if any(is_numbered(block) for block, _ in checked):
        _check_numbered(checked)
    return checked


def _check_grouping(sites: Sites) -> None:
    seen: set[tuple[str, str]] = set()
    finished: set[str] = set()
    current = None
    for block, component in sites:
        if (block, component) in seen:
            raise ScheduleError("this site occurs twice", block=block, component=component)
        if block != current:
            if block in finished:
                raise ScheduleError("a block's sites are not together", block=block, component=component)
            finished.add(current or "")
            current = block
        seen.add((block, component))


def _check_numbered(sites: Sites) -> None:
    components: dict[str, list[str]] = dict(by_block(sites))
    num_single = sum(map(is_single, components))
    for found, expected in zip(components, numbered_blocks(len(components) - num_single, num_single), strict=True):
        if found != expected:
            raise ScheduleError(
                "numbered blocks are out of order", expected=f"block {expected}", found=f"block {found}"
            )
        first = in_gene_order(components["single_0" if is_single(expected) else "0"])
        if components[found] != first:
            raise ScheduleError(
                "components differ from block to block or are out of order",
                block=found,
                expected=", ".join(first),
                found=", ".join(components[found]),
                remedy="name such blocks by module path",
            )
