"""Imports schedules of other tools: SmoothCache's JSON, step masks, and lists of steps.

These say when a component runs. In between, ecad reuses the component's last output, as for any schedule.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Literal, TypeGuard, get_args

import numpy as np
import numpy.typing as npt

from ecad.errors import ScheduleError
from ecad.schedules import json_values as plain
from ecad.schedules.schedule import CacheSchedule
from ecad.sites.names import Sites

Kind = Literal["smoothcache", "step-mask", "steps"]

_EXAMPLES: dict[Kind, str] = {
    "smoothcache": 'JSON like {"attn": [1, 0, 1], "mlp": [1, 1, 0]}, or a file that holds it',
    "step-mask": "zeros and ones like 1110100 or [1, 1, 0], or a file that holds them",
    "steps": "step numbers like 0,3,6 or [0, 3, 6], or a file that holds them",
}
# SmoothCache uses the component names of the original DiT code or those of diffusers.
_DIFFUSERS_NAMES = {"attn": "attn1", "mlp": "ff"}
_MOST_STEPS = 10_000
_KEY = re.compile(r"(?P<component>.+?)(?:-(?P<block>[0-9]+))?")


def check_kind(kind: str) -> None:
    """Raise ScheduleError if there is no such notation."""
    if kind not in get_args(Kind):
        raise ScheduleError("unknown notation", expected=", ".join(get_args(Kind)), found=kind)


def from_text(kind: Kind, text: str, sites: Sites, steps: int | None = None) -> CacheSchedule:
    """Parse a schedule from text.

    Args:
        kind: the notation of the text.
        text: "smoothcache": its JSON. "step-mask": "1110100", a JSON list of 0 and 1, or cache-dit's bins as
            `{"compute_bins": [3, 1], "cache_bins": [1, 2]}`. "steps": "0,3,6,9" or a JSON list.
        sites: the model's (block, component) pairs.
        steps: denoising steps. Required for "steps"; the other kinds imply the number, which must agree.

    Raises:
        ScheduleError: the text is not in this notation, or the number of steps is missing or disagrees.

    >>> from ecad.schedules import pixart_sites
    >>> from_text("steps", "0,3,6", pixart_sites(28), steps=8)
    CacheSchedule('steps', 8 steps × 84 sites, 37.5% recomputed)
    """
    check_kind(kind)
    if kind == "steps" and steps is None:
        raise ScheduleError("a list of steps needs the argument steps, the total number of steps")
    text = text.strip()
    if kind == "step-mask" and re.fullmatch("[01]+", text):
        schedule = from_step_mask(text, sites)
    else:
        value = _json(kind, f"[{text}]" if kind == "steps" and re.fullmatch("[-0-9, ]+", text) else text)
        if kind == "smoothcache":
            schedule = from_smoothcache(value, sites)
        elif kind == "steps":
            schedule = from_steps(value, sites, steps or 0)
        elif isinstance(value, dict) and set(value) == {"compute_bins", "cache_bins"}:
            schedule = from_bins(value["compute_bins"], value["cache_bins"], sites)
        else:
            schedule = from_step_mask(value, sites)
    if steps not in (None, schedule.num_steps):
        raise ScheduleError(
            f"the {kind} has another number of steps than the argument steps",
            expected=f"{steps} steps",
            found=f"{schedule.num_steps} steps",
            remedy="leave the argument out, and resample the schedule",
        )
    return schedule


def from_smoothcache(document: object, sites: Sites) -> CacheSchedule:
    """A SmoothCache schedule (arXiv 2411.10510): `{"attn": [1, 0, ...], "mlp": [...]}`, one number per step, 1 = run.

    A key names a component in all blocks. `attn-3` names it in the block with this number and takes precedence.
    Components without a key always run, as in SmoothCache. `attn` and `mlp`, the names of the original DiT code, stand
    for `attn1` and `ff` if the sites have no components of these names. The first step always computes.

    Args:
        document: the file's JSON value.
        sites: the model's (block, component) pairs.

    Raises:
        ScheduleError: the document is malformed, or a key names none of the sites.

    >>> from ecad.schedules import pixart_sites
    >>> schedule = from_smoothcache({"attn": [1, 0, 1], "attn-1": [1, 0, 0], "mlp": [1, 1, 0]}, pixart_sites(2))
    >>> schedule.recompute.astype(int).tolist()
    [[1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 1, 1], [1, 1, 0, 0, 1, 0]]
    """
    if not isinstance(document, Mapping) or not document:
        expected = _EXAMPLES["smoothcache"]
        raise ScheduleError("not a SmoothCache schedule", expected=expected, found=plain.show(document))
    plain.check(document)
    masks = {key: _bits(mask, f"key {key}") for key, mask in document.items()}
    first, *others = masks
    for key in others:
        if len(masks[key]) != len(masks[first]):
            expected = f"{len(masks[first])} steps, as {first} has"
            raise ScheduleError(f"key {key}: lists differ in length", expected=expected, found=str(len(masks[key])))
    recompute = np.ones((len(masks[first]), len(sites)), dtype=bool)
    # Keys without a block first: those with a block take precedence.
    for key in sorted(masks, key=lambda key: _parts(key)[1] is not None):
        recompute[:, _columns(key, sites)] = masks[key][:, None]
    return _schedule(recompute, sites, "smoothcache")


def from_step_mask(mask: Sequence[int] | str, sites: Sites) -> CacheSchedule:
    """A mask of whole steps, 1 = compute, 0 = reuse, as cache-dit's `steps_computation_mask`.

    The first step always computes.

    Args:
        mask: one number per step, or text like "1110100".
        sites: the model's (block, component) pairs.

    Raises:
        ScheduleError: the mask is empty, or has other values than zeros and ones.

    >>> from ecad.schedules import pixart_sites
    >>> from_step_mask("11010", pixart_sites(2)).recompute[:, 0].astype(int).tolist()
    [1, 1, 0, 1, 0]
    """
    bits = _bits([int(bit) if bit in "01" else bit for bit in mask] if isinstance(mask, str) else mask, "step mask")
    return _schedule(bits[:, None], sites, "step-mask")


def from_bins(compute_bins: Sequence[int], cache_bins: Sequence[int], sites: Sites) -> CacheSchedule:
    """Alternating runs of whole steps, computing first, as cache-dit's `steps_mask(compute_bins, cache_bins)`.

    Args:
        compute_bins: lengths of the runs that compute, in steps, each at least 1.
        cache_bins: lengths of the runs that reuse; as many as `compute_bins`, or one fewer.
        sites: the model's (block, component) pairs.

    Raises:
        ScheduleError: a length is not a positive whole number, or the lists do not alternate.

    >>> from ecad.schedules import pixart_sites
    >>> from_bins([2, 1], [3, 1], pixart_sites(2)).recompute[:, 0].astype(int).tolist()
    [1, 1, 0, 0, 0, 1, 0]
    """
    for name, bins in (("compute_bins", compute_bins), ("cache_bins", cache_bins)):
        if not _is_list(bins) or not all(_is_number(length, 1) for length in bins):
            raise ScheduleError(
                f"{name}: not lengths of runs", expected="a list of numbers from 1", found=plain.show(bins)
            )
    if not compute_bins or len(compute_bins) - len(cache_bins) not in (0, 1):
        found = f"{len(compute_bins)} and {len(cache_bins)}"
        raise ScheduleError("runs do not alternate", expected="as many cache_bins, or one fewer", found=found)
    if (length := sum(compute_bins) + sum(cache_bins)) > _MOST_STEPS:
        raise ScheduleError("the runs are too long", expected=f"at most {_MOST_STEPS} steps", found=str(length))
    mask: list[int] = []
    for run, pause in zip_longest(compute_bins, cache_bins, fillvalue=0):
        mask += [1] * run + [0] * pause
    return from_step_mask(mask, sites)


def from_steps(computed: Sequence[int], sites: Sites, steps: int) -> CacheSchedule:
    """A list of the whole steps that compute. The first step always computes.

    Args:
        computed: step numbers, from 0, in any order.
        sites: the model's (block, component) pairs.
        steps: total number of denoising steps.

    Raises:
        ScheduleError: the value is not a list, or a number is not a step.

    >>> from ecad.schedules import pixart_sites
    >>> from_steps([0, 3, 5], pixart_sites(2), steps=6).recompute[:, 0].astype(int).tolist()
    [1, 0, 0, 1, 0, 1]
    """
    if not _is_list(computed) or not computed:
        raise ScheduleError("not a list of steps", expected="step numbers like [0, 3, 6]", found=plain.show(computed))
    for step in computed:
        if not _is_number(step, 0) or step >= steps:
            expected = f"a whole number from 0 to {steps - 1}"
            raise ScheduleError("not one of the steps", expected=expected, found=plain.show(step))
    return _schedule(np.isin(np.arange(steps), computed)[:, None], sites, "steps")


def _schedule(recompute: npt.NDArray[np.bool_], sites: Sites, origin: str) -> CacheSchedule:
    """Make a schedule from bits (steps, sites), or (steps, 1) for all sites."""
    recompute = np.repeat(recompute, len(sites) // recompute.shape[1], axis=1)
    recompute[0] = True
    return CacheSchedule(recompute, sites, name=origin, attributes={"imported_from": origin})


def _json(kind: Kind, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=plain.unique_object)
    except (ValueError, RecursionError):
        raise ScheduleError(f"not {kind}", expected=_EXAMPLES[kind], found=plain.show(text)) from None


def _bits(mask: object, what: str) -> npt.NDArray[np.bool_]:
    if not _is_list(mask) or not mask:
        raise ScheduleError(f"{what}: not a mask", expected="0 or 1 for each step", found=plain.show(mask))
    for step, bit in enumerate(mask):
        if not _is_number(bit, 0) or bit > 1:
            raise ScheduleError(f"{what}: not a bit", step=f"{step:03d}", expected="0 or 1", found=plain.show(bit))
    return np.array(mask, dtype=bool)


def _columns(key: str, sites: Sites) -> list[int]:
    """The columns of the sites that a SmoothCache key names."""
    component, number = _parts(key)
    present = {name for _, name in sites}
    component = component if component in present else _DIFFUSERS_NAMES.get(component, component)
    columns = [
        i
        for i, (block, name) in enumerate(sites)
        if name == component and (number is None or re.fullmatch(rf"(.*[._])?{number}", block))
    ]
    if not columns:
        expected = f"{', '.join(sorted(present))}, alone or with a block's number"
        raise ScheduleError(f"key {key}: none of the model's sites", expected=expected, found=key)
    return columns


def _parts(key: str) -> tuple[str, str | None]:
    """A SmoothCache key's component, and its block's number if there is one."""
    match = _KEY.fullmatch(key)
    return (match["component"], match["block"]) if match else (key, None)


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_number(value: object, least: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
