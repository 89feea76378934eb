"""Hand-made schedules: the baselines of a search, and its initial population.

Each function takes the model's sites and a number of steps, and records its arguments in the schedule's attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ecad.errors import ScheduleError
from ecad.schedules.fields import Bits, check_number
from ecad.schedules.schedule import CacheSchedule
from ecad.sites.names import Sites


def none(sites: Sites, steps: int) -> CacheSchedule:
    """Recompute everything at every step: no caching.

    Args:
        sites: the model's (block, component) pairs.
        steps: denoising steps, at least 1.

    >>> from ecad.schedules import pixart_sites
    >>> none(pixart_sites(28), 20).to_bits().size
    1680
    """
    return _schedule("none", "none", sites, _all_ones(sites, steps))


def every_n(sites: Sites, steps: int, n: int, components: Iterable[str] | None = None) -> CacheSchedule:
    """Recompute at every n-th step, starting with the first, and reuse in between: FORA (arXiv 2407.01425).

    Args:
        sites: the model's (block, component) pairs.
        steps: denoising steps, at least 1.
        n: steps from one recomputation to the next, at least 1.
        components: the components to cache; the others always recompute. None for all.

    Raises:
        ScheduleError: a number is out of range, or no block has a component.

    >>> from ecad.schedules import pixart_sites
    >>> every_n(pixart_sites(28), 20, n=3).recompute[:, 0].nonzero()[0].tolist()
    [0, 3, 6, 9, 12, 15, 18]
    """
    check_number("n", n, 1)
    chosen = _chosen(sites, components)
    recompute = _all_ones(sites, steps)
    recompute[:, _columns(sites, chosen)] = (np.arange(steps) % n == 0)[:, None]
    suffix = () if components is None else chosen
    return _schedule("every_n", "_".join((f"every_{n}", *suffix)), sites, recompute, n=n, components=list(chosen))


def evenly_spaced_blocks(
    sites: Sites, steps: int, num_blocks: int, num_steps: int, components: Iterable[str] | None = None
) -> CacheSchedule:
    """Reuse in blocks that are evenly spaced over the depth, at steps that are evenly spaced over time.

    Args:
        sites: the model's (block, component) pairs.
        steps: denoising steps, at least 2.
        num_blocks: number of blocks that reuse, of those that have the components; includes the first and the last.
        num_steps: number of steps at which they reuse, less than `steps`: the first step has nothing to reuse.
        components: the components to cache; the others always recompute. None for all.

    Raises:
        ScheduleError: a number is out of range, or no block has a component.

    >>> from ecad.schedules import pixart_sites
    >>> reused = ~evenly_spaced_blocks(pixart_sites(28), 20, num_blocks=3, num_steps=3, components=["ff"]).recompute
    >>> reused.any(axis=1).nonzero()[0].tolist(), (reused.any(axis=0).nonzero()[0] // 3).tolist()
    ([5, 10, 15], [0, 14, 27])
    """
    chosen = _chosen(sites, components)
    blocks = _blocks_with(sites, chosen)
    check_number("num_blocks", num_blocks, 0, len(blocks))
    # Positions half-way between two blocks are rounded to the even one, as in the published populations.
    kept = np.linspace(0, len(blocks) - 1, num_blocks).round().astype(int)
    return _block_schedule("evenly_spaced_blocks", sites, steps, [blocks[i] for i in kept], num_steps, chosen)


def middle_blocks(
    sites: Sites, steps: int, num_blocks: int, num_steps: int, components: Iterable[str] | None = None
) -> CacheSchedule:
    """Reuse in the blocks around the middle of the model, at steps that are evenly spaced over time.

    The first and the last blocks, whose outputs change most from step to step, always recompute.

    Args:
        sites: the model's (block, component) pairs.
        steps: denoising steps, at least 2.
        num_blocks: number of blocks that reuse, of those that have the components.
        num_steps: number of steps at which they reuse, less than `steps`.
        components: the components to cache; the others always recompute. None for all.

    Raises:
        ScheduleError: a number is out of range, or no block has a component.

    >>> from ecad.schedules import pixart_sites
    >>> reused = ~middle_blocks(pixart_sites(6), 4, num_blocks=2, num_steps=1).recompute
    >>> reused.any(axis=1).nonzero()[0].tolist(), (reused.any(axis=0).nonzero()[0][::3] // 3).tolist()
    ([2], [2, 3])
    """
    chosen = _chosen(sites, components)
    blocks = _blocks_with(sites, chosen)
    check_number("num_blocks", num_blocks, 0, len(blocks))
    first = (len(blocks) - num_blocks) // 2
    return _block_schedule("middle_blocks", sites, steps, blocks[first : first + num_blocks], num_steps, chosen)


def tgate(
    sites: Sites,
    steps: int,
    gate: int,
    sp_interval: int = 5,
    fi_interval: int = 1,
    warmup: int = 2,
    self_attention: str = "attn1",
    cross_attention: str = "attn2",
) -> CacheSchedule:
    """TGATE (arXiv 2404.02747) without its averaging of the two guidance halves.

    Before the gate, in the semantics-planning phase, cross-attention always recomputes and self-attention is cached.
    From the gate on, in the fidelity-improving phase, cross-attention is always reused. All other components always
    recompute.

    Args:
        sites: the model's (block, component) pairs.
        steps: denoising steps.
        gate: the first step at which cross-attention is reused, 1 to `steps`.
        sp_interval: before the gate, self-attention recomputes at every multiple of this number of steps.
        fi_interval: the same from the gate on.
        warmup: number of first steps at which everything recomputes.
        self_attention: name of the self-attention component.
        cross_attention: name of the cross-attention component.

    Raises:
        ScheduleError: a number is out of range, or no block has a component.

    >>> from ecad.schedules import pixart_sites
    >>> schedule = tgate(pixart_sites(28), 20, gate=10, sp_interval=3)
    >>> ["".join("#" if bit else "." for bit in schedule.recompute[:, i]) for i in (0, 1)]
    ['##.#..#..###########', '##########..........']
    """
    check_number("gate", gate, 1, steps)
    check_number("sp_interval", sp_interval, 1)
    check_number("fi_interval", fi_interval, 1)
    check_number("warmup", warmup, 1, steps)
    chosen = _chosen(sites, (self_attention, cross_attention))
    step = np.arange(steps)
    recompute = _all_ones(sites, steps)
    interval = np.where(step < gate, sp_interval, fi_interval)
    recompute[:, _columns(sites, [self_attention])] = ((step < warmup) | (step % interval == 0))[:, None]
    recompute[:, _columns(sites, [cross_attention])] = ((step < warmup) | (step < gate))[:, None]
    numbers = {"gate": gate, "sp_interval": sp_interval, "fi_interval": fi_interval, "warmup": warmup}
    name = "_".join(("tgate", *(f"{key}_{value}" for key, value in numbers.items())))
    return _schedule("tgate", name, sites, recompute, **numbers, components=list(chosen))


def _block_schedule(
    heuristic: str, sites: Sites, steps: int, blocks: Sequence[str], num_steps: int, components: Sequence[str]
) -> CacheSchedule:
    check_number("num_steps", num_steps, 0, steps - 1)
    # The published rule: the steps that recompute and one beyond the last step are evenly spaced.
    computing = np.arange(steps - num_steps) * (steps + 1) // (steps - num_steps)
    reusing = np.setdiff1d(np.arange(steps), computing)
    recompute = _all_ones(sites, steps)
    recompute[np.ix_(reusing, _columns(sites, components, blocks))] = False
    name = "_".join((heuristic.split("_")[0], f"{len(blocks)}_blocks", f"{num_steps}_steps", *components))
    arguments = {"num_blocks": len(blocks), "num_steps": num_steps, "components": list(components)}
    return _schedule(heuristic, name, sites, recompute, **arguments)


def _schedule(heuristic: str, name: str, sites: Sites, recompute: Bits, **arguments: object) -> CacheSchedule:
    return CacheSchedule(recompute, sites, name=name, attributes={"heuristic": heuristic, **arguments})


def _all_ones(sites: Sites, steps: int) -> Bits:
    check_number("steps", steps, 1)
    return np.ones((steps, len(sites)), dtype=bool)


def _chosen(sites: Sites, components: Iterable[str] | None) -> tuple[str, ...]:
    """The given components, or all of them. Raises ScheduleError if no block has one of them."""
    present = tuple(dict.fromkeys(component for _, component in sites))
    if components is None:
        return present
    chosen = tuple(dict.fromkeys(components))
    for component in chosen:
        if component not in present:
            raise ScheduleError("no block has this component", expected=", ".join(present), found=repr(component))
    if not chosen:
        raise ScheduleError("no component was chosen", expected=", ".join(present), found="none")
    return chosen


def _blocks_with(sites: Sites, components: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(block for block, component in sites if component in components))


def _columns(sites: Sites, components: Sequence[str], blocks: Sequence[str] | None = None) -> npt.NDArray[np.intp]:
    """The columns of these components, in these blocks or in all."""
    chosen = [component in components and (blocks is None or block in blocks) for block, component in sites]
    return np.flatnonzero(chosen)
