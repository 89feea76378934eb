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
    region = np.zeros(first.shape, dtype=bool)
    region[start:end] = _some_sites(sites, random)
    return np.where(region, second, first), np.where(region, first, second)


def _shift(bits: Bits, columns: Bits, random: np.random.Generator) -> None:
    """Swap the bits of two neighbouring steps, chosen among those that differ."""
    differs = (bits[1:-1] != bits[2:])[:, columns].any(axis=1)
    if differs.any():
        step = random.choice(np.flatnonzero(differs)) + 1
        here, there = bits[step, columns].copy(), bits[step + 1, columns].copy()
        bits[step, columns], bits[step + 1, columns] = there, here


def _toggle(bits: Bits, columns: Bits, random: np.random.Generator) -> None:
    """Let some sites all recompute, or all reuse, at one step."""
    step = random.integers(1, len(bits))
    share = bits[step, columns].mean()
    bits[step, columns] = random.random() >= share


def _some_sites(sites: Sites, random: np.random.Generator) -> Bits:
    """A mask over the sites, equally likely all, one component, a range of blocks, or one component in such a range."""
    block_of, component_of = _coordinates(sites)
    chosen = np.ones(len(sites), dtype=bool)
    if random.random() < 0.5:
        # Lengths are log-uniform: short ranges are as likely as long ones.
        blocks = block_of[-1] + 1
        length = int(np.exp(random.uniform(0, np.log(blocks + 1))))
        start = random.integers(0, blocks - length + 1)
        chosen &= (block_of >= start) & (block_of < start + length)
    if random.random() < 0.5:
        chosen &= component_of == random.choice(component_of[chosen])
    return chosen


@lru_cache
def _coordinates(sites: Sites) -> tuple[np.ndarray, np.ndarray]:
    """The index of each site's block and component."""
    blocks = {block: i for i, block in enumerate(dict.fromkeys(block for block, _ in sites))}
    components = {component: i for i, component in enumerate(dict.fromkeys(component for _, component in sites))}
    pairs = [(blocks[block], components[component]) for block, component in sites]
    return np.array([block for block, _ in pairs]), np.array([component for _, component in pairs])
