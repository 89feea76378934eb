"""A schedule that says what it was made for is refused elsewhere, or warned of."""

from __future__ import annotations

import warnings

import diffusers
import pytest
import torch

import ecad
from ecad.runtime.compatibility import configuration_of, layout_of
from ecad.schedules.provenance import Provenance
from ecad.sites.discovery import discover


@pytest.fixture
def schedule(pixart):
    """A schedule made for the tiny PixArt pipeline as it is."""
    denoiser = pixart.pipe.transformer
    origin = Provenance(
        denoiser="PixArtTransformer2DModel",
        layout=layout_of(denoiser, discover(denoiser)),
        configuration=configuration_of(denoiser),
        sampler="DPMSolverMultistepScheduler",
        latents=(4, 8, 8),
    )
    return pixart.random_schedule().replace(attributes={"provenance": origin.to_json()})


@pytest.fixture(autouse=True)
def strict():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ecad.EcadWarning)
        yield


def test_where_it_was_made_for_nothing_is_said(pixart, schedule):
    with ecad.cached(pixart.pipe, schedule):
        assert torch.equal(pixart.run(), pixart.reference(schedule))


def test_another_variant_is_warned_of(make, schedule):
    other = make.pixart()
    other.pipe.transformer.register_to_config(sample_size=16)
    with pytest.raises(ecad.EcadWarning, match="another variant of the model; the share of MACs saved stays"):
        ecad.enable_cache(other.pipe, schedule)
    assert "_ecad_run" not in vars(other.pipe)


def test_another_layout_is_refused(make, schedule):
    origin = dict(schedule.attributes["provenance"]) | {"layout": "0" * 16}
    with pytest.raises(ecad.ScheduleError, match="of another layout") as caught:
        ecad.enable_cache(make.pixart().pipe, schedule.replace(attributes={"provenance": origin}))
    assert not isinstance(caught.value, ecad.EcadWarning)


def test_another_sampler_is_warned_of(make, schedule):
    other = make.pixart(scheduler=diffusers.DDIMScheduler())
    with (
        ecad.cached(other.pipe, schedule),
        pytest.raises(ecad.EcadWarning, match="expected DPMSolverMultistepScheduler, found DDIMScheduler"),
    ):
        other.run()


def test_another_resolution_is_warned_of(pixart, schedule):
    with ecad.cached(pixart.pipe, schedule), pytest.raises(ecad.EcadWarning, match="found 4 x 16 x 16"):
        pixart.run(height=128, width=128)


def test_another_number_of_steps_is_warned_of(pixart, schedule):
    with pytest.raises(ecad.EcadWarning, match="another number of steps; more steps keep its gain"):
        ecad.enable_cache(pixart.pipe, schedule.resample(6))


def test_a_warning_stops_nothing_by_default(make, schedule):
    other = make.pixart(scheduler=diffusers.DDIMScheduler())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with ecad.cached(other.pipe, schedule):
            assert other.run().isfinite().all()
    assert [warning.category for warning in told if "schedule" in str(warning.message)] == [ecad.EcadWarning]


def test_the_layout_is_the_class_and_the_sites_and_the_configuration_is_not(make):
    def both(tiny):
        denoiser = tiny.pipe.transformer
        return layout_of(denoiser, discover(denoiser)), configuration_of(denoiser)

    first, same, deeper = both(make.pixart()), both(make.pixart(seed=1)), both(make.pixart(blocks=2))
    assert first == same
    assert first[0] != deeper[0]
    assert first[1] != deeper[1]
