"""Hand-made schedules: the baselines, and where a search starts.

Each takes the model's sites and a number of steps, and tells in the schedule's attributes how it was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ecad.errors import ScheduleError
from ecad.schedules.schedule import Bits, CacheSchedule
from ecad.sites.names import Sites


def none(sites: Sites, steps: int) -> CacheSchedule:
    """Recompute everything: no caching.

    Args:
        sites: the model's (block, component) pairs.
        steps: denoising steps, at least 1.

    >>> from ecad.schedules import pixart_sites
    >>> none(pixart_sites(28), 20).to_bits().size
    1680
    """
    return _schedule("none", "none", sites, _all_ones(sites, steps))


def every_n(sites: Sites, steps: int, n: int, components: Iterable[str] | None = None) -> CacheSchedule:
    """Recompute at every n-th step, from the first on, and reuse in between: FORA (arXiv 2407.01425).

    Args:
        sites: the model's (block, component) pairs.
        steps: denoising steps, at least 1.
        n: the distance of two recomputations in steps, at least 1.
        components: those it applies to; the others always recompute. All when None.

    Raises:
        ScheduleError: a number out of range, or a component that no block has.

    >>> from ecad.schedules import pixart_sites
    >>> every_n(pixart_sites(28), 20, n=3).recompute[:, 0].nonzero()[0].tolist()
    [0, 3, 6, 9, 12, 15, 18]
    """
    _check("n", n, 1, None)
    chosen = _chosen(sites, components)
    recompute = _all_ones(sites, steps)
    recompute[:, _columns(sites, chosen)] = (np.arange(steps) % n == 0)[:, None]
    told = () if components is None else chosen
    return _schedule("every_n", "_".join((f"every_{n}", *told)), sites, recompute, n=n, components=list(chosen))


def evenly_spaced_blocks(
    sites: Sites, steps: int, num_blocks: int, num_steps: int, components: Iterable[str] | None = None
) -> CacheSchedule:
    """Reuse in some blocks, evenly spaced over the depth, at some steps, evenly spaced over time.

    Args:
        sites: the model's (block, component) pairs.
        steps: denoising steps, at least 2.
        num_blocks: how many of the blocks that have the components reuse; the first and the last are among them.
        num_steps: at how many steps they reuse, less than `steps`: the first step has nothing to reuse.
        components: those that reuse; the others always recompute. All when None.

    Raises:
        ScheduleError: a number out of range, or a component that no block has.

    >>> from ecad.schedules import pixart_sites
    >>> reused = ~evenly_spaced_blocks(pixart_sites(28), 20, num_blocks=3, num_steps=3, components=["ff"]).recompute
    >>> reused.any(axis=1).nonzero()[0].tolist(), (reused.any(axis=0).nonzero()[0] // 3).tolist()
    ([5, 10, 15], [0, 14, 27])
    """
    chosen = _chosen(sites, components)
    blocks = _blocks_with(sites, chosen)
    _check("num_blocks", num_blocks, 0, len(blocks))
    # Half-way positions go to the even block, as in the published populations.
    kept = np.linspace(0, len(blocks) - 1, num_blocks).round().astype(int)
    return _block_schedule("evenly_spaced_blocks", sites, steps, [blocks[i] for i in kept], num_steps, chosen)


def middle_blocks(
    sites: Sites, steps: int, num_blocks: int, num_steps: int, components: Iterable[str] | None = None
) -> CacheSchedule:
    """Reuse in the blocks around the middle of the model, at some steps, evenly spaced over time.

    The first and the last blocks, which change most from step to step, recompute. Arguments and errors are those of
    `evenly_spaced_blocks`.

    >>> from ecad.schedules import pixart_sites
    >>> reused = ~middle_blocks(pixart_sites(6), 4, num_blocks=2, num_steps=1).recompute
    >>> reused.any(axis=1).nonzero()[0].tolist(), (reused.any(axis=0).nonzero()[0][::3] // 3).tolist()
    ([2], [2, 3])
    """
    chosen = _chosen(sites, components)
    blocks = _blocks_with(sites, chosen)
    _check("num_blocks", num_blocks, 0, len(blocks))
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
    """TGATE (arXiv 2404.02747) without its averaging of the guidance halves.

    Before the gate, in the semantics-planning phase, cross-attention recomputes and self-attention is cached; from
    the gate on, in the fidelity-improving phase, cross-attention is frozen. The rest always recomputes.

    Args:
        sites: the model's (block, component) pairs.
        steps: denoising steps.
        gate: the first step at which cross-attention is reused, 1 to `steps`.
        sp_interval: before the gate self-attention recomputes at multiples of this many steps.
        fi_interval: the same from the gate on.
        warmup: first steps at which everything recomputes.
        self_attention: the component's name.
        cross_attention: the component's name.

    Raises:
        ScheduleError: a number out of range, or a component that no block has.

    >>> from ecad.schedules import pixart_sites
    >>> schedule = tgate(pixart_sites(28), 20, gate=10, sp_interval=3)
    >>> ["".join("#" if bit else "." for bit in schedule.recompute[:, i]) for i in (0, 1)]
    ['##.#..#..###########', '##########..........']
    """
    _check("gate", gate, 1, steps)
    _check("sp_interval", sp_interval, 1, None)
    _check("fi_interval", fi_interval, 1, None)
    _check("warmup", warmup, 1, steps)
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
    _check("num_steps", num_steps, 0, steps - 1)
    # The published rule: the steps that recompute, and one past the end, are evenly spaced.
    computing = np.arange(steps - num_steps) * (steps + 1) // (steps - num_steps)
    reusing = np.setdiff1d(np.arange(steps), computing)
    recompute = _all_ones(sites, steps)
    recompute[np.ix_(reusing, _columns(sites, components, blocks))] = False
    name = "_".join((heuristic.split("_")[0], f"{len(blocks)}_blocks", f"{num_steps}_steps", *components))
    told = {"num_blocks": len(blocks), "num_steps": num_steps, "components": list(components)}
    return _schedule(heuristic, name, sites, recompute, **told)


def _schedule(heuristic: str, name: str, sites: Sites, recompute: Bits, **told: Any) -> CacheSchedule:
    return CacheSchedule(recompute, sites, name=name, attributes={"heuristic": heuristic, **told})


def _all_ones(sites: Sites, steps: int) -> Bits:
    _check("steps", steps, 1, None)
    return np.ones((steps, len(sites)), dtype=bool)


def _chosen(sites: Sites, components: Iterable[str] | None) -> tuple[str, ...]:
    """The components as given, or all; each must be some block's."""
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
    """Where the sites of these components stand, in these blocks or in all."""
    held = [component in components and (blocks is None or block in blocks) for block, component in sites]
    return np.flatnonzero(held)


def _check(name: str, value: int, least: int, most: int | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        expected = f"a whole number from {least}" + ("" if most is None else f" to {most}")
        raise ScheduleError(f"{name} is out of range", expected=expected, found=repr(value))
