"""Whole-step schedules to start from: one probe per step, then exact dynamic programming over reuse or forecasts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecad.calibration.step_choice import best_forecasts, harms
from ecad.genetic.genes import SearchSpace
from ecad.schedules.schedule import Bits

# With this many computed steps or fewer, repeating an output may be better than extrapolating it.
_FEW_COMPUTED_STEPS = 10
# Squared changes below this fraction of the squared outputs are rounding errors.
_ROUNDING = 1e-9


def probes(space: SearchSpace) -> Bits:
    """Schedules that reuse everything at one step and compute all others: their errors measure how much steps matter.

    Returns:
        bool (steps - 1, steps, sites), for steps 1, 2, ...
    """
    steps = space.shape[0]
    bits = np.ones((steps - 1, *space.shape), dtype=bool)
    bits[np.arange(steps - 1), np.arange(1, steps)] = False
    bits[:, 0] = space.forecast != "either"
    return space.plans(bits)


def read_probes(space: SearchSpace, plans: Bits, quality: np.ndarray) -> np.ndarray:
    """The squared error of reusing at each step but the first, read off the probes.

    An image of fewer steps than the reference has an error of its own, which is subtracted where it is known.

    Args:
        space: of the probes.
        plans: bool (n, steps, sites), evaluated candidates, the probes among them.
        quality: float (n,), -10 log10 of their squared errors. A probe that is missing counts as the worst of them.

    Returns:
        float64 (steps - 1,).
    """
    known = {plan.tobytes(): value for plan, value in zip(plans, quality, strict=True)}
    worst = quality.min()
    decibels = [known.get(probe.tobytes(), worst) for probe in probes(space)]
    own = known.get(np.ones(space.shape, dtype=bool).tobytes(), np.inf)
    errors = 10 ** (-np.array(decibels) / 10)
    return np.asarray(np.maximum(errors - 10 ** (-own / 10), _ROUNDING * errors))


def whole_steps(space: SearchSpace, errors: np.ndarray) -> Bits:
    """For each number of computed steps except all, the schedule of least expected error, by `best_steps`.

    With forecast "either" these extrapolate. Where at most `_FEW_COMPUTED_STEPS` steps are computed, there is a second
    schedule that does not: extrapolation from outputs that are far apart may be worse than repetition.

    Args:
        space: of the schedules.
        errors: float (steps - 1,), squared errors of reusing at step 1, 2, ...

    Returns:
        bool (n, steps, sites), the most expensive first, the second schedules last.
    """
    steps = space.shape[0]
    bits = np.zeros((steps - 1, *space.shape), dtype=bool)
    for one, kept in zip(bits, range(steps - 1, 0, -1), strict=True):
        one[list(best_steps(errors, kept))] = True
    if space.forecast != "either":
        return bits
    repeating = bits[-_FEW_COMPUTED_STEPS:].copy()
    bits[:, 0] = False
    return np.concatenate([bits, repeating])


def forecast_steps(space: SearchSpace, errors: np.ndarray) -> Bits:
    """For each number of computed steps except all, the schedule of least forecast error, by `best_forecasts`.

    A forecast error at a step affects images in proportion to the error of that step's probe, and steps add up.

    Args:
        space: of the schedules.
        errors: as for `whole_steps`.

    Returns:
        bool (n, steps, sites), the most expensive first; n is 0 unless schedules may extrapolate and their output
        products are known.
    """
    products = space.template.output_products
    if products is None or space.forecast == "never":
        return np.zeros((0, *space.shape), dtype=bool)
    return _programmed(space, products, image_error_weights(products, errors))


def steps_by_law(space: SearchSpace, coefficients: Sequence[float]) -> Bits:
    """The schedules with which a calibration begins: as `forecast_steps`, by the laws of `harms` instead of probes.

    Args:
        space: of the schedules.
        coefficients: float (steps,), the sampler's coefficient of each output; empty if the sampler is not affine.

    Returns:
        bool (n, steps, sites), the most expensive first, law by law; n is 0 where `forecast_steps` gives none, or
        without coefficients.
    """
    products = space.template.output_products
    if products is None or space.forecast == "never" or not len(coefficients):
        return np.zeros((0, *space.shape), dtype=bool)
    return np.concatenate([_programmed(space, products, harm) for harm in harms(coefficients)])


def _programmed(space: SearchSpace, products: np.ndarray, harm: np.ndarray) -> Bits:
    bits = np.zeros((space.shape[0] - 1, *space.shape), dtype=bool)
    for one, places in zip(bits, reversed(best_forecasts(products, harm)), strict=True):
        one[list(places)] = True
    bits[:, 0] = space.forecast == "always"
    return bits


def sparse_every_n(space: SearchSpace) -> Bits:
    """Schedules that compute every third, fourth, fifth and sixth step: hard to dominate at low cost.

    Returns:
        bool (4, steps, sites); 8 with forecast "either", of which the last four extrapolate.
    """
    bits = np.zeros((4, *space.shape), dtype=bool)
    for one, n in zip(bits, range(3, 7), strict=True):
        one[::n] = True
    if space.forecast != "either":
        return bits
    forecasting = bits.copy()
    forecasting[:, 0] = False
    return np.concatenate([bits, forecasting])


def best_steps(errors: Sequence[float] | np.ndarray, kept: int) -> tuple[int, ...]:
    """The steps to compute so that the reused ones cause the least error.

    The model: outputs drift at a constant rate, so one that is reused for n steps is off n times as far as for one
    step. Errors within a run of reused steps point the same way and add up before they are squared; runs are
    independent.

    Args:
        errors: squared errors of reusing, at step 1, 2, ..., what the step before computed.
        kept: the number of computed steps, the first included.

    Returns:
        the indices of the computed steps, in order.

    >>> best_steps([0.1, 0.1, 0.1, 0.1, 9.0, 9.0], kept=3)
    (0, 5, 6)
    """
    steps = len(errors) + 1
    # loss[a, b]: error of reusing, from a + 1 to b - 1, what step a computed.
    loss = np.full((steps, steps + 1), np.inf)
    for start in range(steps):
        ages = np.arange(steps - start)
        off = np.sqrt(np.concatenate([[0.0], np.asarray(errors, dtype=np.float64)])[start:]) * ages
        loss[start, start + 1 :] = np.cumsum(off) ** 2
    least, before = loss[:, steps].copy(), []
    for _ in range(kept - 1):
        # least[a]: error of all that follows if step a computes, and as many later steps as there were rounds.
        total = loss[:, :steps] + least[None, :]
        before.append(total.argmin(axis=1))
        least = total.min(axis=1)
    place, places = 0, [0]
    for following in reversed(before):
        place = int(following[place])
        places.append(place)
    return tuple(places)


def image_error_weights(products: np.ndarray, errors: Sequence[float] | np.ndarray) -> np.ndarray:
    """The image error per squared output error, by step: the probe's error divided by the output's squared change.

    Args:
        products: float (steps, steps), as in `CacheSchedule.output_products`.
        errors: squared errors of reusing, at step 1, 2, ..., what the step before computed.

    Returns:
        float64 (steps,); 0 for the first step, which always computes, and where the output does not change.
    """
    own = products.diagonal()
    moved = own[1:] + own[:-1] - 2 * products.diagonal(1)
    known = moved > _ROUNDING * own.max()
    loss = np.divide(errors, moved, out=np.zeros_like(moved), where=known)
    return np.append(0.0, loss)
