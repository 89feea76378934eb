"""Compiles a schedule into a plan: what every call of every site does. Pure numpy.

Three rules turn the bits of a schedule into a plan:

- The first call of a site computes, whatever its bit is.
- Outputs that are never used are not computed. A site with a *reader* (the only other site that uses its output)
  computes only if the reader runs in this step, or reuses the output in a later one. In FLUX, `proj_out` is the reader
  of the `attn` and `proj_mlp` of its single block, so if it is reused, they are skipped.
- An output is cached only if a later step reuses it before it is computed again, and is freed by the last reuse.

A schedule that *forecasts* extrapolates outputs by one step from the last two computed ones, so an output is also
remembered until the next computation. In a step in which no site runs, the denoiser is skipped and its own output is
extrapolated (`schedules.forecast`). It is one more site, the last, which computes whenever another site does.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

_AT_ONCE = 200


class Action(enum.IntEnum):
    """What one call of one site does."""

    COMPUTE = 0
    """Compute; the output is not needed after this step."""
    KEEP = 1
    """Compute, and cache the output for a later step."""
    REUSE = 2
    """Return the cached output."""
    FREE = 3
    """Return the cached output for the last time."""
    SKIP = 4
    """Do nothing: the site's reader does not run, or the denoiser does not."""


def executed(recompute: np.ndarray, readers: np.ndarray | None = None) -> np.ndarray:
    """The sites that compute under a schedule, or under each of many.

    Args:
        recompute: bool (..., steps, sites), the bits of the schedules; at least one step.
        readers: int (sites,), each site's reader or -1, as `families.readers` gives them; None for no dead work.

    Returns:
        a new bool array (..., steps, sites).

    Raises:
        ValueError: a reader has a reader itself.

    >>> attn, proj_out = [1, 1, 0], [1, 0, 1]
    >>> executed(np.array([attn, proj_out]).T).astype(int).T.tolist()
    [[1, 1, 0], [1, 0, 1]]
    >>> attn, proj_out = [1, 1, 1], [1, 0, 1]  # nothing reads the second step's attn
    >>> executed(np.array([attn, proj_out]).T, readers=np.array([1, -1])).astype(int).T.tolist()
    [[1, 0, 1], [1, 0, 1]]
    """
    runs = _with_first_visit(recompute)
    producers, their_readers = _producers(readers)
    if producers.size:
        fresh = runs[..., producers]
        runs[..., producers] = fresh & _wanted(runs[..., their_readers], fresh)
    return runs


def forecast_matters(runs: np.ndarray, readers: np.ndarray | None = None) -> np.ndarray:
    """For which of many schedules it makes a difference whether they forecast.

    Args:
        runs: bool (..., steps, sites), as `executed` gives them.
        readers: as for `executed`.

    Returns:
        bool (...,).

    >>> forecast_matters(np.array([[[1, 1], [0, 1], [0, 1]], [[1, 1], [1, 1], [0, 1]]], dtype=bool)).tolist()
    [False, True]
    """
    producers, their_readers = _producers(readers)
    read = np.ones_like(runs)
    read[..., producers] = runs[..., their_readers]
    twice = runs.cumsum(axis=-2, dtype=np.uint16) >= 2
    lines = (twice & ~runs & read).any(axis=(-2, -1))
    return np.asarray(lines | ~runs.any(axis=-1).all(axis=-1))


def make_plan(
    recompute: np.ndarray,
    readers: np.ndarray | None = None,
    forecast: bool = False,
    depth: np.ndarray | None = None,
) -> Plan:
    """Compile one schedule.

    Args:
        recompute: bool (steps, sites), at least one step.
        readers: as for `executed`.
        forecast: whether the schedule forecasts.
        depth: int (steps,), of how many computed outputs what stands for the denoiser's is made in each step
            (`Ahead.depth`); by default itself where it runs, else the last two.

    Raises:
        ValueError: as for `executed`.

    >>> ff = make_plan(np.array([[1], [0], [0], [1], [1]])).actions[:, 0]
    >>> [Action(action).name for action in ff]
    ['KEEP', 'REUSE', 'FREE', 'COMPUTE', 'COMPUTE']
    >>> ff, denoiser = make_plan(np.array([[1], [0], [0], [1], [0]]), forecast=True).actions.T
    >>> [Action(action).name for action in denoiser], [Action(action).name for action in ff]
    (['KEEP', 'REUSE', 'FREE', 'KEEP', 'FREE'], ['COMPUTE', 'SKIP', 'SKIP', 'COMPUTE', 'SKIP'])
    """
    return _compile(recompute, readers, forecast, depth)


def peaks(
    recompute: np.ndarray,
    readers: np.ndarray | None,
    sizes: np.ndarray,
    order: np.ndarray,
    forecast: bool = False,
) -> np.ndarray:
    """`Plan.peak` of many schedules at once.

    Args:
        recompute: bool (schedules, steps, sites), at least one step.
        readers, forecast: as for `make_plan`; the same for all schedules.
        sizes, order: as for `Plan.peak`.

    Returns:
        int64 (schedules,).

    >>> bits = np.array([[[1, 1], [0, 1], [1, 0]], [[1, 1], [1, 1], [1, 1]]])
    >>> peaks(bits, None, np.array([10, 100]), np.array([1, 0])).tolist()
    [110, 0]
    """
    # A few hundred at a time stay in the processor's cache.
    parts = np.split(recompute, range(_AT_ONCE, len(recompute), _AT_ONCE)) if len(recompute) else []
    found = [_compile(part, readers, forecast)._peaks(sizes, order) for part in parts]
    return np.concatenate([np.zeros(0, dtype=np.int64), *found])


@dataclass(frozen=True, eq=False)
class Plan:
    """What every call does; read-only tables (steps, sites), or (steps, sites + 1) with the denoiser if it forecasts.

    Attributes:
        num_sites: without the denoiser.
        actions: uint8, values of `Action`.
        gaps: where a line is drawn to be reused, how many steps ago the output ran before; 0 everywhere else.
        remembered: bool, where an output is remembered as it came, for the next line.
        reused: bool, where an output is wanted later, in whatever form.
        held: uint8, of each site's outputs after its call: none, one, or the line's point and what came; of the
            denoiser's those that a later step's is made of.
    """

    num_sites: int
    actions: np.ndarray
    gaps: np.ndarray
    remembered: np.ndarray
    reused: np.ndarray
    held: np.ndarray

    def __post_init__(self) -> None:
        for table in (self.actions, self.gaps, self.remembered, self.reused, self.held):
            table.flags.writeable = False

    @property
    def forecasts(self) -> bool:
        """Whether the denoiser is among its sites, the last."""
        return bool(self.actions.shape[1] > self.num_sites)

    def counts(self) -> np.ndarray:
        """Calls of sites that compute, reuse and are skipped in each step: int (steps, 3)."""
        kinds = (Action.COMPUTE, Action.KEEP), (Action.REUSE, Action.FREE), (Action.SKIP,)
        sites = self.actions[:, : self.num_sites]
        return np.stack([np.isin(sites, kind).sum(axis=1) for kind in kinds], axis=1)

    def peak(self, sizes: np.ndarray, order: np.ndarray | None = None) -> int:
        """Maximum of cached bytes during a generation; no cache with the same outputs needs less.

        Args:
            sizes: int (sites + 1,), bytes of each site's output and of the denoiser's, which a plan that does not
                forecast can do without; or (passes, sites + 1) if a step is several forwards.
            order: int (sites,), the sites in the order in which a forward runs them; as they stand if None.

        >>> make_plan(np.array([[1, 1], [0, 1], [1, 0]])).peak(np.array([10, 100]))
        100
        >>> make_plan(np.array([[1, 1], [0, 1], [1, 0]])).peak(np.array([10, 100]), order=np.array([1, 0]))
        110
        """
        return int(self._peaks(sizes, order))

    def _peaks(self, sizes: np.ndarray, order: np.ndarray | None) -> np.ndarray:
        held = self.held
        sizes = np.atleast_2d(sizes).astype(np.int64)[:, : held.shape[-1]]
        if order is not None:
            order = np.append(order, np.arange(len(order), held.shape[-1]))  # the denoiser's output comes last
            held, sizes = held[..., order], sizes[:, order]
        change = np.diff(held.astype(np.int8), axis=-2, prepend=np.int8(0))[..., None, :] * sizes
        moments = change.reshape(*held.shape[:-2], -1).cumsum(axis=-1)
        return np.asarray(moments.max(axis=-1, initial=0))


def _compile(
    recompute: np.ndarray, readers: np.ndarray | None, forecast: bool, depth: np.ndarray | None = None
) -> Plan:
    """`make_plan` of one schedule, or of many (..., steps, sites) in one."""
    fresh = _with_first_visit(recompute)
    runs = executed(fresh, readers)
    producers, their_readers = _producers(readers)
    read = np.ones_like(fresh)
    read[..., producers] = runs[..., their_readers]
    if forecast:
        denoiser_runs = np.asarray(runs.any(axis=-1, keepdims=True))
        read &= denoiser_runs
        fresh, runs = (np.concatenate([table, denoiser_runs], axis=-1) for table in (fresh, runs))
        read = np.concatenate([read, np.ones_like(denoiser_runs)], axis=-1)
    wanted_later = np.zeros_like(fresh)
    wanted_later[..., :-1, :] = _wanted(read, fresh)[..., 1:, :] & ~fresh[..., 1:, :]
    gaps, remembered = _lines(runs, wanted_later) if forecast else _no_lines(runs.shape)
    # Plain bytes: numpy would make 64-bit numbers of the members.
    compute, keep, reuse, free, skip = (np.uint8(action) for action in Action)
    computes = np.where(wanted_later | remembered, keep, compute)
    returns = np.where(wanted_later, reuse, free)
    actions = np.where(runs, computes, np.where(read, returns, skip))
    shown = _latest(wanted_later, runs | read)
    held = shown.view(np.uint8)
    if forecast:  # where no line was drawn yet, what is shown is what came
        is_drawn = _latest(gaps > 0, runs)
        held = held + (_latest(remembered, runs) & (is_drawn | ~shown))
        held[..., -1] = _held_outputs(denoiser_runs[..., 0], depth)
    return Plan(recompute.shape[-1], actions, gaps, remembered, wanted_later, held)


def _held_outputs(runs: np.ndarray, depth: np.ndarray | None) -> np.ndarray:
    """How many outputs of the denoiser, the newest ones, are kept after each step: uint8 (..., steps)."""
    depths: np.ndarray = np.where(runs, 1, np.minimum(runs.cumsum(axis=-1), 2)) if depth is None else depth
    held = np.zeros(runs.shape, dtype=np.uint8)
    needed = np.zeros(runs.shape[:-1], dtype=np.int64)
    for step in range(runs.shape[-1] - 1, -1, -1):
        held[..., step] = needed
        needed = np.maximum(needed, depths[..., step]) - runs[..., step]
    return held


def _no_lines(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(shape, dtype=np.uint16), np.zeros(shape, dtype=bool)


def _lines(runs: np.ndarray, wanted_later: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`Plan.gaps` and `Plan.remembered`."""
    steps = runs.shape[-2]
    gaps, remembered = _no_lines(runs.shape)
    last = np.full_like(gaps[..., 0, :], steps)
    for step in range(steps):
        is_line = runs[..., step, :] & wanted_later[..., step, :] & (last < steps)
        gaps[..., step, :] = np.where(is_line, step - last, 0)
        last = np.where(runs[..., step, :], step, last)
    wanted = np.zeros_like(runs[..., 0, :])
    for step in reversed(range(steps)):
        ran = runs[..., step, :]
        remembered[..., step, :] = ran & wanted
        wanted = np.where(ran, gaps[..., step, :] > 0, wanted)
    return gaps, remembered


def _latest(values: np.ndarray, told: np.ndarray) -> np.ndarray:
    """In each step the value of the last step that tells one; False before any."""
    found: np.ndarray = values & told
    for step in range(1, values.shape[-2]):
        found[..., step, :] |= found[..., step - 1, :] & ~told[..., step, :]
    return found


def _with_first_visit(recompute: np.ndarray) -> np.ndarray:
    fresh = np.array(recompute, dtype=bool, order="C")
    fresh[..., 0, :] = True
    return fresh


def _producers(readers: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    readers = np.empty(0, dtype=np.intp) if readers is None else np.asarray(readers)
    producers = np.flatnonzero(readers >= 0)
    their_readers = readers[producers]
    if (readers[their_readers] >= 0).any():
        raise ValueError("a reader has a reader: expected readers whose own output is always read")
    return producers, their_readers


def _wanted(read: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """Whether the output current in a step is looked at in that step, or later before it is renewed."""
    wanted: np.ndarray = read.copy()
    for step in range(read.shape[-2] - 2, -1, -1):
        wanted[..., step, :] |= wanted[..., step + 1, :] & ~fresh[..., step + 1, :]
    return wanted
