"""A calibration on a tiny pipeline: which prompts do what, what it costs, and what it hands out."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from tiny_pipelines import TINY, Tiny

import ecad
from ecad import builtin
from ecad.calibration import trajectory as trajectories
from ecad.calibration.calibrate import Calibration
from ecad.calibration.of_generator import calibrated_front
from ecad.errors import EcadError
from ecad.quality import psnr
from ecad.quality.video import frames_of_strip, score_frames
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


class Calibrated(NamedTuple):
    """A pipeline, what was made of it, and what came of that."""

    tiny: Tiny
    maker: Maker
    progress: list[float]
    front: Front


def calibrated(tiny, max_images=None) -> Calibrated:
    maker, progress = Maker(tiny), []
    front = Calibration(tiny.pipe, maker, 4, (2, 4), max_images, progress.append).front("tiny")
    return Calibrated(tiny, maker, progress, front)


@pytest.fixture(scope="module", params=["pixart", "flux", "flux_two_passes"])
def once(request) -> Calibrated:
    """Of each tiny pipeline, calibrated once: the tests look at different things of it."""
    return calibrated(TINY[request.param]())


def test_a_front_has_a_schedule_for_each_speedup_and_none_that_a_cheaper_one_beats(once):
    front = once.front
    for speedup in (2, 4):
        assert front.pick(speedup=speedup).recompute.any(axis=1).sum() <= STEPS / speedup
    qualities = [point.quality for point in front.points]
    assert qualities == sorted(set(qualities))
    assert all(point.cost == point.schedule.recompute.any(axis=1).mean() for point in front.points)


def test_schedules_state_the_noise_levels_of_their_rows(once):
    once.tiny.run(STEPS)  # the pipeline of FLUX gives its sampler other levels than the sampler would take
    levels = once.tiny.pipe.scheduler.sigmas.tolist()
    for schedule in once.front.schedules:
        assert list(schedule.config["sigmas"]) == levels[:-1]
        run = by_sigma(schedule, levels)
        assert run.computed.tolist() == schedule.recompute.any(axis=1).tolist()
        assert run.weights == schedule.output_weights


def test_the_prompts_that_fit_and_those_that_choose_are_disjoint(once):
    maker, front = once.maker, once.front
    assert {places for places, _ in maker.asked} == {(0, 1), (2, 3)}
    for places, schedule in maker.asked:
        assert places == (2, 3) or schedule is None or schedule.output_weights is None
    assert dict(front.provenance)["fitting_prompts"] == dict(front.provenance)["validation_prompts"] == 2


def images(maker: Maker) -> float:
    shares = [1.0 if schedule is None else schedule.recompute.any(axis=1).mean() for _, schedule in maker.asked]
    return float(2 * np.sum(shares))


def test_images_are_counted_by_what_the_denoiser_does(once):
    assert np.isclose(dict(once.front.provenance)["images"], images(once.maker), atol=0.06)
    assert once.progress == sorted(once.progress)
    assert once.progress[-1] == 1


def test_more_images_move_steps_and_no_more_are_made(once):
    more = calibrated(once.tiny, max_images=36.1)
    assert images(once.maker) < images(more.maker) <= 36.1
    tried = [
        {schedule.recompute.any(axis=1).tobytes() for _, schedule in one.maker.asked if schedule}
        for one in (once, more)
    ]
    assert tried[0] < tried[1]


def test_of_a_sampler_that_is_not_affine_forecasts_are_left_as_they_are(once, monkeypatch):
    def refuse(*_):
        raise ValueError("not affine")

    monkeypatch.setattr(trajectories, "affine_step", refuse)
    front = calibrated(once.tiny).front
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


def test_nothing_is_left_on_the_pipeline(once):
    assert not {"step", "set_timesteps"} & set(vars(once.tiny.pipe.scheduler))
    assert "forward" not in vars(once.tiny.pipe.transformer)


def test_a_clip_is_scored_by_frame():
    generator = replace(ecad.get_image_generator("EmojiVideoGenerator", device="cpu"), steps=4)
    prompts = builtin.prompts("search", generator.name)[:2]
    call = {"num_inference_steps": 4, "height": 64, "width": 64, **generator.call}

    def own(schedule):
        """The clip of the second prompt, which validates; its seed is 1."""
        noise = torch.Generator("cpu").manual_seed(1)
        with nullcontext() if schedule is None else ecad.cached(generator.pipe, schedule):
            [frames] = generator.pipe([prompts[1]], generator=noise, output_type="np", **call).frames
        return np.round(frames * 255).astype(np.uint8)

    [point] = ecad.calibrate(generator.pipe, prompts, speedups=[2], **call).points
    assert is_mean_of_frames(point.quality, own(point.schedule), own(None))
    [point] = calibrated_front(generator, prompts, speedups=[2]).points
    strips = [generator.generate(generator.encode(prompts[1:]), [1], one)[0] for one in (point.schedule, None)]
    assert is_mean_of_frames(point.quality, *(frames_of_strip(strip, 8) for strip in strips))


def is_mean_of_frames(quality, clip, uncached) -> bool:
    """Whether a quality is the mean PSNR of the frames, and not that of all pixels."""
    of_all = float(psnr(clip.reshape(1, -1, 64, 3), uncached.reshape(1, -1, 64, 3))[0])
    return quality == score_frames(clip, uncached).mean != pytest.approx(of_all, abs=0.01)
