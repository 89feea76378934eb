"""A calibration on a tiny pipeline: which prompts do what, what it costs, and what it hands out."""

from __future__ import annotations

import numpy as np
import pytest

import ecad
from ecad.calibration import trajectory as trajectories
from ecad.calibration.calibrate import Calibration
from ecad.errors import EcadError
from ecad.schedules.by_sigma import by_sigma
from ecad.schedules.front import Front

STEPS = 8


class Maker:
    """Makes the images of places, and remembers for which places and schedules it was asked."""

    def __init__(self, tiny):
        self.tiny, self.asked = tiny, []

    def __call__(self, places, schedule):
        self.asked.append((tuple(places), schedule))
        if schedule is None:
            latents = self.tiny.run(STEPS, batch=len(places))
        else:
            with ecad.cached(self.tiny.pipe, schedule):
                latents = self.tiny.run(STEPS, batch=len(places))
        squeezed = 127.5 + 100 * latents.flatten(1).tanh()
        return squeezed.round().byte().numpy()[:, None, :, None].repeat(3, axis=3)


def calibrated(tiny, speedups=(2, 4), max_images=None) -> tuple[Maker, list[float], Front]:
    maker, progress = Maker(tiny), []
    return maker, progress, Calibration(tiny.pipe, maker, 4, speedups, max_images, progress.append).front("tiny")


def test_a_front_has_a_schedule_for_each_speedup_and_none_that_a_cheaper_one_beats(tiny):
    _, _, front = calibrated(tiny)
    for speedup in (2, 4):
        assert front.pick(speedup=speedup).recompute.any(axis=1).sum() <= STEPS / speedup
    qualities = [point.quality for point in front.points]
    assert qualities == sorted(set(qualities))
    assert all(point.cost == point.schedule.recompute.any(axis=1).mean() for point in front.points)


def test_schedules_state_the_noise_levels_of_their_rows(tiny):
    _, _, front = calibrated(tiny, speedups=(2,))
    tiny.run(STEPS)  # the pipeline of FLUX gives its sampler other levels than the sampler would take
    levels = tiny.pipe.scheduler.sigmas.tolist()
    for schedule in front.schedules:
        assert list(schedule.config["sigmas"]) == levels[:-1]
        run = by_sigma(schedule, levels)
        assert run.computed.tolist() == schedule.recompute.any(axis=1).tolist()
        assert run.weights == schedule.output_weights


def test_the_prompts_that_fit_and_those_that_choose_are_disjoint(tiny):
    maker, _, front = calibrated(tiny)
    assert {places for places, _ in maker.asked} == {(0, 1), (2, 3)}
    for places, schedule in maker.asked:
        assert places == (2, 3) or schedule is None or schedule.output_weights is None
    assert dict(front.provenance)["fitting_prompts"] == dict(front.provenance)["validation_prompts"] == 2


def images(maker: Maker) -> float:
    shares = [1.0 if schedule is None else schedule.recompute.any(axis=1).mean() for _, schedule in maker.asked]
    return float(2 * np.sum(shares))


def test_images_are_counted_by_what_the_denoiser_does(tiny):
    maker, progress, front = calibrated(tiny)
    assert np.isclose(dict(front.provenance)["images"], images(maker), atol=0.06)
    assert progress == sorted(progress)
    assert progress[-1] == 1


def test_more_images_move_steps_and_no_more_are_made(tiny):
    first, more = calibrated(tiny), calibrated(tiny, max_images=36.1)
    assert images(first[0]) < images(more[0]) <= 36.1
    tried = [
        {schedule.recompute.any(axis=1).tobytes() for _, schedule in one[0].asked if schedule} for one in (first, more)
    ]
    assert tried[0] < tried[1]


def test_of_a_sampler_that_is_not_affine_forecasts_are_left_as_they_are(tiny, monkeypatch):
    def refuse(*_):
        raise ValueError("not affine")

    monkeypatch.setattr(trajectories, "affine_step", refuse)
    _, _, front = calibrated(tiny)
    assert all(schedule.output_weights is None for schedule in front.schedules)
    assert all(schedule.output_products is not None for schedule in front.schedules)


@pytest.mark.parametrize(
    ("prompts", "speedups", "message"),
    [
        (1, [2], "1 prompts are too few; give at least 2"),
        (4, [0.5], "`speedups` must be 1 or more"),
        (4, [], "speedups"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_before_any_image(prompts, speedups, message):
    with pytest.raises(EcadError, match=message):
        Calibration(None, None, prompts, speedups)  # type: ignore[arg-type]


def test_nothing_is_left_on_the_pipeline(tiny):
    calibrated(tiny, speedups=(2,))
    assert not {"step", "set_timesteps"} & set(vars(tiny.pipe.scheduler))
    assert "forward" not in vars(tiny.pipe.transformer)
