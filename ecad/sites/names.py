"""Sites, the (block, component) pairs of one denoiser, in gene order: the order of a schedule's columns.

Blocks named by number are the published format's: "0", "1", ... and, after all of those, "single_0", "single_1", ...
Every other model names its blocks by module path and its sites stand in the order in which they are given.
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

# A denoiser as a whole, for schedules of whole steps that run on any.
DENOISER_SITES: Sites = (("denoiser", "output"),)

# Keys with this prefix stand beside a block's components in the published format and are no components.
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
    """Whether a block key is one of the published format's, not a module path."""
    return _NUMBERED.fullmatch(block) is not None


def is_single(block: str) -> bool:
    """Whether a block key belongs to FLUX's second list of blocks."""
    return is_numbered(block) and block.startswith("single_")


def in_gene_order(components: Iterable[str]) -> list[str]:
    """One block's components in the published order; unknown ones last, as given."""
    return sorted(components, key=lambda component: _RANK.get(component, len(_RANK)))


def by_block(sites: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Each block with its components.

    >>> by_block(pixart_sites(2))
    [('0', ['attn1', 'attn2', 'ff']), ('1', ['attn1', 'attn2', 'ff'])]
    """
    return [(block, [site[1] for site in group]) for block, group in groupby(sites, key=lambda site: site[0])]


def check_sites(sites: Iterable[Sequence[str]]) -> Sites:
    """Return the sites as a tuple of pairs, or raise ScheduleError if no schedule file could hold them."""
    pairs = [tuple(site) for site in sites]
    if not pairs:
        raise ScheduleError("no sites", expected="at least one (block, component) pair", found="none")
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(name, str) and name and name.isprintable() for name in pair):
            raise ScheduleError("not a site", expected="a pair of printable names (block, component)", found=repr(pair))
        if pair[1].startswith(CUSTOM_PREFIX):
            raise ScheduleError(f"{CUSTOM_PREFIX}* is no component", block=pair[0], component=pair[1])
    checked: Sites = tuple((block, component) for block, component in pairs)
    blocks = [block for block, _ in by_block(checked)]
    if len(set(checked)) < len(checked) or len(set(blocks)) < len(blocks):
        block, component = next(site for i, site in enumerate(checked) if _returns(checked, i))
        raise ScheduleError("sites are not grouped by block, each once", block=block, component=component)
    if any(map(is_numbered, blocks)):
        _check_numbered(checked)
    return checked


def _returns(sites: Sites, i: int) -> bool:
    """Whether site i was seen before, or its block was left before."""
    return sites[i] in sites[:i] or (sites[i - 1][0] != sites[i][0] and any(s[0] == sites[i][0] for s in sites[:i]))


def _check_numbered(sites: Sites) -> None:
    components: dict[str, list[str]] = dict(by_block(sites))
    num_single = sum(map(is_single, components))
    for found, expected in zip(components, numbered_blocks(len(components) - num_single, num_single), strict=True):
        if found != expected:
            raise ScheduleError(
                "numbered blocks are out of order", expected=f"block {expected}", found=f"block {found}"
            )
        alike = in_gene_order(components["single_0" if is_single(expected) else "0"])
        if components[found] != alike:
            raise ScheduleError(
                "components differ from block to block or are out of order; name such blocks by module path",
                block=found,
                expected=", ".join(alike),
                found=", ".join(components[found]),
            )
