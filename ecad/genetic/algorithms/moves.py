"""Mutation: of whole steps, where reused steps may be forecast, and of single bits elsewhere."""

from __future__ import annotations

import numpy as np

from ecad.schedules.schedule import Bits

# Largest distance of a move in steps.
_FARTHEST = 2


def flip_bits(bits: Bits, random: np.random.Generator) -> Bits:
    """A copy of one schedule, bool (steps, sites), with one bit flipped on average."""
    flipped: Bits = bits ^ (random.random(bits.shape) < 1 / bits.size)
    return flipped


def move_steps(bits: Bits, random: np.random.Generator) -> Bits:
    """The whole-step schedule with the computed steps of another, after one or more moves.

    A move computes one more step or one less, or computes a step's neighbour instead of it.

    Args:
        bits: bool (steps, sites), at least two steps. A step counts as computed if all of its sites are.
        random: draws the moves.

    Returns:
        bool (steps, sites); the first row, which may have a meaning of its own, is kept.
    """
    computed = np.asarray(bits.all(axis=1))
    for _ in range(random.geometric(0.5)):
        step = int(random.integers(1, len(computed)))
        if random.random() < 0.5:
            computed[step] = not computed[step]
            continue
        other = step + int(random.integers(1, _FARTHEST + 1))
        if other < len(computed):
            computed[[step, other]] = computed[[other, step]]
    moved = np.repeat(computed[:, None], bits.shape[1], axis=1)
    moved[0] = bits[0]
    return moved
