"""A schedule compiled before the first step: what every call of every site does. Pure numpy.

Three rules turn the bits of a schedule into a plan:

- The first visit of a site computes, whatever its bit says.
- Dead work is not done: a site that has a *reader* (another site, the only one that looks at its output) computes only
  if that output is looked at, in this step or by a reuse in a later one. FLUX: `proj_out` is the reader of the `attn`
  and `proj_mlp` of its single block, so when it is reused, they are skipped.
- An output is kept only if a later step reuses it before it is computed again, and freed by the last such reuse.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

_AT_ONCE = 200


class Action(enum.IntEnum):
    """What one call of one site does."""

    COMPUTE = 0
    """Compute; nobody needs the output after this step."""
    KEEP = 1
    """Compute, and keep the output for a later step."""
    REUSE = 2
    """Return the kept output."""
    FREE = 3
    """Return the kept output for the last time."""
    SKIP = 4
    """Do nothing: the site's reader does not look."""


def executed(recompute: np.ndarray, readers: np.ndarray | None = None) -> np.ndarray:
    """Tell which sites really compute under a schedule, or under each of many.

    Arguments:
        recompute: bool (..., steps, sites), the bits of the schedules; at least one step.
        readers: int (sites,), each site's reader or -1, as `families.readers` gives them; None for no dead work.

    Returns a new bool array (..., steps, sites).

    Raises ValueError if a reader has a reader itself.

    >>> attn, proj_out = [1, 1, 0], [1, 0, 1]
    >>> executed(np.array([attn, proj_out]).T).astype(int).T.tolist()
    [[1, 1, 0], [1, 0, 1]]
    >>> attn, proj_out = [1, 1, 1], [1, 0, 1]  # the second step's attn is read by nobody
    >>> executed(np.array([attn, proj_out]).T, readers=np.array([1, -1])).astype(int).T.tolist()
    [[1, 0, 1], [1, 0, 1]]
    """
    runs = _with_first_visit(recompute)
    producers, their_readers = _producers(readers)
    if producers.size:
        fresh = runs[..., producers]
        runs[..., producers] = fresh & _wanted(runs[..., their_readers], fresh)
    return runs


def make_plan(recompute: np.ndarray, readers: np.ndarray | None = None) -> Plan:
    """Compile one schedule.

    Arguments:
        recompute: bool (steps, sites), at least one step.
        readers: as for `executed`.

    Raises ValueError as `executed` does.

    >>> ff = make_plan(np.array([[1], [0], [0], [1], [1]])).actions[:, 0]
    >>> [Action(action).name for action in ff]
    ['KEEP', 'REUSE', 'FREE', 'COMPUTE', 'COMPUTE']
    """
    actions = _actions(recompute, readers)
    actions.flags.writeable = False
    return Plan(actions)


def peaks(recompute: np.ndarray, readers: np.ndarray | None, sizes: np.ndarray, order: np.ndarray) -> np.ndarray:
    """`Plan.peak` of many schedules at once.

    Arguments:
        recompute: bool (schedules, steps, sites), at least one step.
        readers, sizes, order: as for `make_plan` and `Plan.peak`; the same for all schedules.

    Returns int64 (schedules,).

    >>> bits = np.array([[[1, 1], [0, 1], [1, 0]], [[1, 1], [1, 1], [1, 1]]])
    >>> peaks(bits, None, np.array([10, 100]), np.array([1, 0])).tolist()
    [110, 0]
    """
    # A few hundred at a time stay in the processor's cache.
    parts = np.split(recompute, range(_AT_ONCE, len(recompute), _AT_ONCE)) if len(recompute) else []
    return np.array([peak for part in parts for peak in _peak(_actions(part, readers), sizes, order)], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Plan:
    """`actions`: read-only uint8 (steps, sites), the value of an `Action` for every call."""

    actions: np.ndarray

    def counts(self) -> np.ndarray:
        """Calls that compute, reuse and are skipped in each step: int (steps, 3)."""
        kinds = (Action.COMPUTE, Action.KEEP), (Action.REUSE, Action.FREE), (Action.SKIP,)
        return np.stack([np.isin(self.actions, kind).sum(axis=1) for kind in kinds], axis=1)

    def peak(self, sizes: np.ndarray, order: np.ndarray | None = None) -> int:
        """Most bytes that kept outputs hold at any moment of a generation; no cache that replays them holds less.

        Arguments:
            sizes: int (sites,), bytes of each site's output, or (passes, sites) if a step is several forwards.
            order: int (sites,), the sites in the order in which a forward runs them; as they stand if None.

        >>> make_plan(np.array([[1, 1], [0, 1], [1, 0]])).peak(np.array([10, 100]))
        100
        >>> make_plan(np.array([[1, 1], [0, 1], [1, 0]])).peak(np.array([10, 100]), order=np.array([1, 0]))
        110
        """
        return int(_peak(self.actions, sizes, order))


def _actions(recompute: np.ndarray, readers: np.ndarray | None) -> np.ndarray:
    """Values of `Action`, uint8, of schedules (..., steps, sites)."""
    fresh = _with_first_visit(recompute)
    runs = executed(fresh, readers)
    producers, their_readers = _producers(readers)
    read = np.ones_like(fresh)
    read[..., producers] = runs[..., their_readers]
    wanted_later = np.zeros_like(fresh)
    wanted_later[..., :-1, :] = _wanted(read, fresh)[..., 1:, :] & ~fresh[..., 1:, :]
    # Plain bytes: numpy would make 64-bit numbers of the members.
    compute, keep, reuse, free, skip = (np.uint8(action) for action in Action)
    computes = np.where(wanted_later, keep, compute)
    returns = np.where(wanted_later, reuse, free)
    return np.asarray(np.where(runs, computes, np.where(read, returns, skip)))


def _peak(actions: np.ndarray, sizes: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    """Most bytes kept under actions (..., steps, sites): int64 (...)."""
    sizes = np.atleast_2d(sizes).astype(np.int64)
    if order is not None:
        actions, sizes = actions[..., order], sizes[:, order]
    held = (actions == Action.KEEP).view(np.int8) - (actions == Action.FREE).view(np.int8)
    change = held[..., None, :] * sizes
    moments = change.reshape(*actions.shape[:-2], -1).cumsum(axis=-1)
    return np.asarray(moments.max(axis=-1, initial=0))


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
