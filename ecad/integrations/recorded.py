"""A front of whole-step schedules from what a denoiser gave at each noise level of uncached runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ecad.calibration.step_choice import best_forecasts
from ecad.errors import EcadError
from ecad.schedules import CacheSchedule
from ecad.schedules.by_sigma import KEY as SIGMAS
from ecad.schedules.forecast import forecasts
from ecad.schedules.front import Front, Point
from ecad.schedules.output_products import Products
from ecad.sites.names import DENOISER_SITES

# Where a forecast is exact its quality would be infinite.
_LEAST_ERROR = 1e-12
SCORER = "expected signal to noise of the latents, dB"


class Recording(NamedTuple):
    """What some images had in common.

    Attributes:
        sigmas: noise levels: where each row begins, and where the last one ends.
        products: float (rows, rows), mean products of the outputs' numbers after guidance at any two rows.
        images: how many images these are means over.
        prediction: what the outputs are, by diffusers' name.
    """

    sigmas: Sequence[float]
    products: Products
    images: int
    prediction: Literal["epsilon", "v_prediction", "flow_prediction"] = "epsilon"


def refuse_other_sigmas(file: Path, sigmas: Sequence[float]) -> None:
    """Raise EcadError if a front's file was recorded at other noise levels than a run is about to take."""
    earlier = _earlier(file)
    if earlier is not None and not _same(earlier.sigmas, sigmas):
        raise EcadError(
            f"{file}: recorded at {len(earlier.sigmas) - 1} other noise levels than this run's {len(sigmas) - 1}; "
            "record into a file of another name, or delete this one"
        )


def add_to_front(file: Path, recording: Recording) -> Front:
    """Write a front's file, together with what was recorded into it before at the same noise levels.

    Args:
        file: of the front; its name is the front's.
        recording: of a run.

    Raises:
        EcadError: the file is of other noise levels, or cannot be written.
    """
    refuse_other_sigmas(file, recording.sigmas)
    earlier = _earlier(file)
    if earlier is not None:
        images = earlier.images + recording.images
        products = (earlier.images * earlier.products + recording.images * recording.products) / images
        recording = recording._replace(products=products, images=images)
    front = front_of(file.stem, recording)
    file.parent.mkdir(parents=True, exist_ok=True)
    front.save(file)
    return front


def front_of(name: str, recording: Recording) -> Front:
    """For each number of computed rows the schedule whose forecasts should harm images least.

    How much an error counts is said in `_weights`. Which rows compute is found by dynamic programming
    (`ecad.calibration.step_choice.best_forecasts`).
    """
    weights = _weights(recording)
    places = [*best_forecasts(recording.products, weights), tuple(range(len(weights)))]
    points = [_point(name, recording, one, weights) for one in places]
    provenance = {"method": "recorded", "images": recording.images, "end": float(recording.sigmas[-1])}
    return Front(name, points, scorer=SCORER, provenance=provenance)


def _weights(recording: Recording) -> npt.NDArray[np.float64]:
    """How much a squared error of each row's output counts.

    A sampler goes from noise to image along a circle, on which image and noise are at right angles. An error of the
    output moves it off its way by the angle that the row's step is long, once the output is put in terms of the circle:
    as the velocity on it (v-prediction; Salimans and Ho, arXiv 2202.00512).
    """
    sigma = np.asarray(recording.sigmas, dtype=np.float64)
    signal = 1 - sigma if recording.prediction == "flow_prediction" else np.ones_like(sigma)
    angle = np.abs(np.diff(np.arctan2(sigma, signal)))
    radius = np.ones(len(angle)) if recording.prediction == "v_prediction" else np.hypot(sigma, signal)[:-1]
    return np.square(angle * radius)


def products_of(outputs: npt.NDArray[np.float64]) -> Products:
    """The products of a recording.

    Args:
        outputs: (rows, numbers).
    """
    products = outputs @ outputs.T / outputs.shape[1]
    return np.asarray((products + products.T) / 2)


def _point(name: str, recording: Recording, places: Sequence[int], weights: npt.NDArray[np.float64]) -> Point:
    rows = len(recording.products)
    bits = np.zeros((rows, 1), dtype=bool)
    bits[list(places)] = True
    schedule = CacheSchedule(
        bits,
        DENOISER_SITES,
        name=f"{name}_{len(places)}_of_{rows}",
        forecast=True,
        output_products=recording.products,
        config={SIGMAS: [float(sigma) for sigma in recording.sigmas[:rows]], "prediction_type": recording.prediction},
    )
    return Point(schedule, cost=len(places) / rows, quality=_quality(schedule, weights))


def _quality(schedule: CacheSchedule, weights: npt.NDArray[np.float64]) -> float:
    """How far the outputs should stand above what their forecasts are off by, in dB."""
    computed, products = schedule.recompute[:, 0], schedule.output_products
    assert products is not None
    aheads, places, error = forecasts(computed, products), computed.nonzero()[0], 0.0
    for step in (~computed).nonzero()[0]:
        before, last = [None, *places[places < step]][-2:]
        off = np.zeros(len(products))
        off[step], off[last] = 1.0, -aheads[step].scale
        if aheads[step].slope is not None and before is not None:
            off[last] -= aheads[step].slope
            off[before] += aheads[step].slope
        error += weights[step] * float(off @ products @ off)
    signal = float((weights * products.diagonal()).sum())
    return -10 * math.log10(max(error / signal, _LEAST_ERROR))


def _earlier(file: Path) -> Recording | None:
    """What a front's file was recorded from; None if there is no file."""
    if not file.exists():
        return None
    front = Front.load(file)
    first = front.schedules[0]
    sigmas, products, images = first.config.get(SIGMAS), first.output_products, front.provenance.get("images")
    if front.provenance.get("method") != "recorded" or sigmas is None or products is None or not images:
        raise EcadError(f"{file}: not a recorded front: record into a file of another name")
    return Recording([*sigmas, front.provenance["end"]], products, images, first.config["prediction_type"])


def _same(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and bool(np.allclose(one, other, rtol=1e-4, atol=0))
