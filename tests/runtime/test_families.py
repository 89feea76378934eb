"""Every family on diffusers' own classes, tiny and random: bit for bit what a schedule means, counted exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from reference import interpret
from zoo import STEPS, ZOO, Specimen
from zoo_discovered import DISCOVERED

import ecad
from ecad.schedules import CacheSchedule, heuristics
from ecad.schedules.plan import executed
from ecad.sites.discovery import discover, family_of
from ecad.sites.families import FAMILIES
from ecad.sites.readers import readers, running_order

SPECIMENS = ZOO | DISCOVERED


@pytest.fixture(params=SPECIMENS)
def specimen(request: pytest.FixtureRequest) -> Specimen:
    return SPECIMENS[request.param]()


def traces(specimen: Specimen) -> list[object]:
    """Everything about the denoisers that a cache could leave a trace in."""
    found: list[object] = []
    for name in specimen.denoisers:
        denoiser = getattr(specimen.pipe, name)
        found += [(path, id(module), sorted(vars(module))) for path, module in denoiser.named_modules()]
        found += list(denoiser.state_dict())
    return found


def test_sites_are_found_in_the_order_in_which_they_run(specimen: Specimen) -> None:
    ran: dict[str, list[tuple[str, str]]] = {name: [] for name in specimen.denoisers}
    for name, mine in ran.items():
        components = specimen.components(name)
        sites = discover(getattr(specimen.pipe, name))
        assert [((site.block, site.component), site.module) for site in sites] == list(components.items())
        for site, module in components.items():
            module.register_forward_hook(lambda *_, mine=mine, site=site: mine.append(site))
    specimen.run()
    for name, mine in ran.items():
        sites = tuple(specimen.components(name))
        order = [sites[index] for index in running_order(sites)]
        forwards = len(mine) // len(order)
        assert forwards
        assert mine == order * forwards


def test_recomputing_everything_changes_nothing_and_leaves_no_trace(specimen: Specimen) -> None:
    bare, before = specimen.run(), traces(specimen)
    with ecad.cached(specimen.pipe, specimen.schedules(None)) as run:
        keys = [name for denoiser in specimen.denoisers for name in getattr(specimen.pipe, denoiser).state_dict()]
        assert torch.equal(specimen.run(), bare)
    assert keys == [trace for trace in before if isinstance(trace, str)]
    assert (run.stats.reused, run.stats.skipped, run.stats.peak_cached_bytes) == (0, 0, 0)
    assert traces(specimen) == before
    assert torch.equal(specimen.run(), bare)


def test_a_random_schedule_is_what_the_reference_makes_of_it(specimen: Specimen) -> None:
    bare, schedules = specimen.run(), specimen.schedules(1)
    expected = interpret(specimen, schedules)
    run = ecad.enable_cache(specimen.pipe, schedules)
    assert torch.equal(specimen.run(), expected.latents)
    assert (run.stats.computed, run.stats.reused, run.stats.skipped) == (
        expected.computed,
        expected.reused,
        expected.skipped,
    )
    assert run.stats.cached_bytes == 0
    assert torch.equal(specimen.run(), expected.latents)
    assert not torch.equal(expected.latents, bare)
    ecad.enable_cache(specimen.pipe, specimen.schedules(None))
    assert torch.equal(specimen.run(), bare)
    ecad.disable_cache(specimen.pipe)
    assert torch.equal(specimen.run(), bare)


def test_a_schedule_that_forecasts_is_what_the_reference_makes_of_it(specimen: Specimen) -> None:
    # What nobody looks at is not computed, and no line goes through it: the reference computes whatever the bits say.
    schedules = {}
    for name, schedule in specimen.schedules(2).items():
        runs = executed(schedule.recompute, readers(schedule.sites))
        runs[specimen.begin + 1 :: 3] = False
        schedules[name] = schedule.replace(recompute=runs)
    forecasting = {name: schedule.replace(forecast=True) for name, schedule in schedules.items()}
    expected = interpret(specimen, forecasting)
    run = ecad.enable_cache(specimen.pipe, forecasting)
    assert torch.equal(specimen.run(), expected.latents)
    assert (run.stats.computed, run.stats.cached_bytes) == (expected.computed, 0)
    assert torch.equal(specimen.run(), expected.latents)
    ecad.enable_cache(specimen.pipe, schedules)
    assert not torch.equal(specimen.run(), expected.latents)


def test_a_schedule_begins_with_the_model_and_survives_its_file(specimen: Specimen, tmp_path: Path) -> None:
    begun = {name: CacheSchedule.for_model(getattr(specimen.pipe, name), STEPS) for name in specimen.denoisers}
    for name, schedule in begun.items():
        assert schedule.sites == tuple(specimen.components(name))
        assert schedule.recompute.all()
        assert schedule.config == {"transformer": type(getattr(specimen.pipe, name)).__name__}
        for made in (
            schedule,
            heuristics.every_n(schedule.sites, STEPS, 2, schedule.components[-1:]),
            heuristics.evenly_spaced_blocks(schedule.sites, STEPS, num_blocks=2, num_steps=2),
            heuristics.middle_blocks(schedule.sites, STEPS, num_blocks=1, num_steps=1),
            specimen.schedules(5)[name],
        ):
            made.save(tmp_path / "schedule.json")
            read = CacheSchedule.load(tmp_path / "schedule.json")
            assert read == made
            assert read.sites == made.sites
    with ecad.cached(specimen.pipe, begun):
        pass


def test_what_the_table_calls_tested_is_tested() -> None:
    tested: dict[str, set[str]] = {family.name: set() for family in FAMILIES}
    for build in ZOO.values():
        specimen = build()
        family = family_of(specimen.pipe.transformer)
        assert family is not None
        if type(specimen.pipe).__module__.startswith("diffusers."):
            tested[family.name].add(type(specimen.pipe).__name__)
    assert all(family_of(build().pipe.transformer) is None for build in DISCOVERED.values())
    assert tested == {family.name: set(family.tested) for family in FAMILIES}
