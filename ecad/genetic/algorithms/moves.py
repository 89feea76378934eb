"""Mutation and crossover that follow a schedule's structure: steps, blocks and components.

Recomputing a site whose inputs are stale is of little use, so sites change together. The first step always computes and
is left unchanged.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ecad.schedules import Sites
from ecad.schedules.schedule import Bits


def mutate(bits: Bits, sites: Sites, random: np.random.Generator) -> Bits:
    """A copy of one schedule, bool (steps, sites) with at least two steps, changed by one or more moves."""
    bits = bits.copy()
    for _ in range(random.geometric(0.5)):
        if random.random() < 0.5:
            _shift(bits, _some_sites(sites, random), random)
        else:
            _toggle(bits, _some_sites(sites, random), random)
    return bits


def exchange(first: Bits, second: Bits, sites: Sites, random: np.random.Generator) -> tuple[Bits, Bits]:
    """Copies of two schedules with a range of steps exchanged, at all sites or at those of `_some_sites`."""
    start, end = np.sort(random.choice(len(first), size=2, replace=False)) + 1
    region = slice(start, end), _some_sites(sites, random)
    changed, other = first.copy(), second.copy()
    changed[region], other[region] = second[region], first[region]
    return changed, other


def _shift(bits: Bits, columns: np.ndarray, random: np.random.Generator) -> None:
    """Swap the bits of two neighbouring steps, chosen among those that differ."""
    region = bits[1:, columns]
    differing = np.flatnonzero((region[:-1] != region[1:]).any(axis=1))
    if len(differing):
        step = _choose(differing, random) + 1
        bits[step, columns], bits[step + 1, columns] = region[step], region[step - 1]


def _toggle(bits: Bits, columns: np.ndarray, random: np.random.Generator) -> None:
    """Let some sites all recompute, or all reuse, at one step."""
    step = random.integers(1, len(bits))
    share = np.count_nonzero(bits[step, columns]) / len(columns)
    bits[step, columns] = random.random() >= share


def _some_sites(sites: Sites, random: np.random.Generator) -> np.ndarray:
    """Indices of sites, equally likely all, one component, a range of blocks, or one component in such a range."""
    start, length = 0, _num_blocks(sites)
    if random.random() < 0.5:
        # Lengths are log-uniform: short ranges are as likely as long ones.
        most = length
        length = int(np.exp(random.uniform(0, np.log(most + 1))))
        start = int(random.integers(0, most - length + 1))
    chosen, components = _block_range(sites, start, length)
    if random.random() < 0.5:
        chosen = chosen[components == _choose(components, random)]
    return chosen


def _choose(values: np.ndarray, random: np.random.Generator) -> int:
    """One of some values; `random.choice` draws the same, slowly."""
    return int(values[random.integers(0, len(values))])


@lru_cache
def _num_blocks(sites: Sites) -> int:
    return len({block for block, _ in sites})


@lru_cache(maxsize=4096)
def _block_range(sites: Sites, start: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the sites in a range of blocks, and the number of each one's component."""
    blocks = {block: i for i, block in enumerate(dict.fromkeys(block for block, _ in sites))}
    components = {component: i for i, component in enumerate(dict.fromkeys(component for _, component in sites))}
    chosen = [i for i, (block, _) in enumerate(sites) if start <= blocks[block] < start + length]
    return np.array(chosen), np.array([components[sites[i][1]] for i in chosen])
