"""What people do to pipelines while a cache is enabled."""

from __future__ import annotations

import copy

import accelerate
import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor
from torch import nn

import ecad
from ecad.runtime.families import readers
from ecad.runtime.plan import executed


def snapshot(pipe) -> dict:
    """Everything about a pipeline that a cache could leave a trace in."""
    return {
        "pipe": dict(vars(pipe)),
        "scheduler": {name: value for name, value in vars(pipe.scheduler).items() if callable(value)},
        "tree": [(path, id(module), type(module)) for path, module in pipe.transformer.named_modules()],
        "attributes": [set(vars(module)) for module in pipe.transformer.modules()],
        "forwards": [vars(module).get("forward") for module in pipe.transformer.modules()],
        "hooks": [
            (len(module._forward_pre_hooks), len(module._forward_hooks), len(module._forward_pre_hooks_with_kwargs))
            for module in pipe.transformer.modules()
        ],
        "state": list(pipe.transformer.state_dict()),
    }


def expected_calls(tiny, schedule) -> int:
    return tiny.passes * executed(schedule.recompute, readers(schedule.sites)).sum()


def break_off(tiny, at: int) -> None:
    """Run a generation into an error in the middle of a denoiser forward."""
    steps = []

    def fail(*_):
        steps.append(None)
        if len(steps) > at:
            raise KeyboardInterrupt

    block = tiny.pipe.transformer.transformer_blocks[1]
    handle = block.register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        tiny.run()
    handle.remove()


def test_disabling_leaves_no_trace(tiny):
    bare, before = tiny.run(), snapshot(tiny.pipe)  # a first run leaves traces of its own
    state = tiny.pipe.transformer.state_dict().keys()
    run = ecad.enable_cache(tiny.pipe, tiny.random_schedule())
    assert tiny.pipe.transformer.state_dict().keys() == state
    assert snapshot(tiny.pipe)["tree"] == before["tree"]
    tiny.run()
    run.disable()
    assert snapshot(tiny.pipe) == before
    assert torch.equal(tiny.run(), bare)
    run.disable()
    ecad.disable_cache(tiny.pipe)
    assert snapshot(tiny.pipe) == before


def test_a_context_disables_after_an_error(pixart):
    before = snapshot(pixart.pipe)
    with pytest.raises(ZeroDivisionError), ecad.cached(pixart.pipe, pixart.random_schedule()):
        raise ZeroDivisionError
    assert snapshot(pixart.pipe) == before


def test_disabling_in_the_middle_of_a_generation(flux):
    bare = flux.run()
    run = ecad.enable_cache(flux.pipe, flux.random_schedule())
    flux.run(callback_on_step_end=lambda *_: run.disable() or {})
    assert torch.equal(flux.run(), bare)
    assert run.stats.cached_bytes == 0
    assert run.stats.peak_cached_bytes > 0


def test_enabling_twice_replaces(tiny):
    first, second = tiny.random_schedule(1), tiny.random_schedule(2)
    expected = tiny.reference(second)
    before = snapshot(tiny.pipe)
    old = ecad.enable_cache(tiny.pipe, first)
    run = ecad.enable_cache(tiny.pipe, second)
    assert torch.equal(tiny.run(), expected)
    old.disable()  # a stale handle holds nothing any more
    once = run.stats.computed
    assert torch.equal(tiny.run(), expected)
    assert run.stats.computed == 2 * once
    assert (old.stats.computed, once) == (0, expected_calls(tiny, second))
    ecad.disable_cache(tiny.pipe)
    assert snapshot(tiny.pipe) == before


def test_a_refused_schedule_leaves_the_enabled_one(pixart):
    schedule = pixart.random_schedule()
    run = ecad.enable_cache(pixart.pipe, schedule)
    with pytest.raises(ecad.ScheduleError):
        ecad.enable_cache(pixart.pipe, ecad.CacheSchedule([[True]], (("0", "ff"),)))
    pixart.run()
    assert run.stats.computed == expected_calls(pixart, schedule)


@pytest.mark.parametrize("at", range(4))
def test_a_generation_after_an_aborted_one(tiny, at):
    schedule = tiny.random_schedule(at)
    expected = tiny.reference(schedule)
    run = ecad.enable_cache(tiny.pipe, schedule)
    break_off(tiny, at * tiny.passes)
    computed = run.stats.computed
    assert torch.equal(tiny.run(), expected)
    assert run.stats.computed - computed == expected_calls(tiny, schedule)
    assert run.stats.cached_bytes == 0


def test_two_pipelines_with_two_schedules_at_once(make):
    one, two = make.pixart(seed=1), make.pixart(seed=2)
    first, second = one.random_schedule(1), two.random_schedule(2, steps=6)
    expected = one.reference(first), two.reference(second)
    runs = []
    with ecad.cached(one.pipe, first) as run_one, ecad.cached(two.pipe, second) as run_two:
        # One generation inside the other.
        one.pipe.transformer.register_forward_hook(lambda *_: runs.append(two.run(6)) if not runs else None)
        assert torch.equal(one.run(), expected[0])
        assert torch.equal(runs[0], expected[1])
    assert run_one.stats.computed == expected_calls(one, first)
    assert run_two.stats.computed == expected_calls(two, second)


def test_two_pipelines_on_one_scheduler_object(make):
    scheduler = diffusers.DPMSolverMultistepScheduler()
    one, two = make.pixart(scheduler, seed=1), make.pixart(scheduler, seed=2)
    methods = {name for name, value in vars(scheduler).items() if callable(value)}
    first, second = one.random_schedule(1, steps=4), two.random_schedule(2, steps=6)
    expected = one.reference(first), two.reference(second)
    handle = ecad.enable_cache(one.pipe, first)
    ecad.enable_cache(two.pipe, second)
    assert torch.equal(one.run(4), expected[0])
    assert torch.equal(two.run(6), expected[1])
    with pytest.raises(ecad.ScheduleError, match=r"expected 4 steps, .* found 6"):
        one.run(6)
    handle.disable()
    assert torch.equal(two.run(6), expected[1])
    ecad.disable_cache(two.pipe)
    assert {name for name, value in vars(scheduler).items() if callable(value)} == methods


def test_batch_and_resolution_may_change_between_generations(tiny):
    schedule = tiny.random_schedule()
    changes = {"batch": 1}, {"batch": 3, "height": 32}, {}
    expected = [tiny.reference(schedule, **change) for change in changes]
    with ecad.cached(tiny.pipe, schedule):
        for change, latents in zip(changes, expected, strict=True):
            assert torch.equal(tiny.run(**change), latents)


def test_batch_and_resolution_may_change_after_an_aborted_generation(tiny):
    schedule = tiny.random_schedule()
    expected = tiny.reference(schedule, batch=1)
    with ecad.cached(tiny.pipe, schedule):
        break_off(tiny, 2)
        assert torch.equal(tiny.run(batch=1), expected)


@torch.no_grad()
def test_a_batch_that_shrinks_in_mid_generation_starts_again(pixart):
    """What guidance that is switched off after some steps does, where both halves run as one batch."""

    def forward(batch):
        latents, text = torch.ones(batch, 4, 8, 8), torch.ones(batch, 5, 12)
        conditions = {"resolution": None, "aspect_ratio": None}
        return pixart.pipe.transformer(latents, text, torch.ones(batch), conditions).sample

    run = ecad.enable_cache(pixart.pipe.transformer, pixart.schedule(np.zeros((3, 9), dtype=bool)))
    bare = forward(1)
    for step, batch in enumerate((2, 1, 1)):
        with run.step(step):
            latents = forward(batch)
        assert len(latents) == batch
    assert torch.equal(latents, bare)
    assert (run.stats.computed, run.stats.reused, run.stats.cached_bytes) == (18, 9, 0)


@torch.no_grad()
def test_a_pass_that_misses_a_step_starts_again(flux):
    """Guidance over an interval only: what the second pass kept before the gap is stale after it."""
    run = ecad.enable_cache(flux.pipe.transformer, flux.schedule(np.zeros((4, len(flux.components)), dtype=bool)))
    computed = []
    for step, passes in enumerate((2, 1, 2, 1)):
        with run.step(step):
            for _ in range(passes):
                forward(flux)
        computed.append(run.stats.computed // len(flux.components))
    assert computed == [2, 2, 3, 3]
    assert run.stats.cached_bytes == 0


@torch.no_grad()
def test_a_hand_written_loop_that_was_broken_off_begins_again(flux):
    block = flux.pipe.transformer.single_transformer_blocks[0]
    run = ecad.enable_cache(flux.pipe.transformer, flux.schedule(np.zeros((4, len(flux.components)), dtype=bool)))
    with run.step(0):
        forward(flux)
    block.proj_out = Adapter(block.proj_out)
    with run.step(0):
        forward(flux)
    assert "forward" in vars(block.proj_out)
    assert "forward" not in vars(block.proj_out.base_layer)
    with run.step(1):
        forward(flux)
    assert run.stats.computed == 2 * len(flux.components)


def test_another_scheduler_between_generations(tiny):
    schedule = tiny.random_schedule()
    other = diffusers.DDIMScheduler if tiny.passes == 1 and len(tiny.components) == 9 else None
    other = other or diffusers.FlowMatchEulerDiscreteScheduler
    with ecad.cached(tiny.pipe, schedule) as run:
        tiny.run()
        once, old = run.stats.computed, tiny.pipe.scheduler
        tiny.pipe.scheduler = other(num_train_timesteps=500)
        latents = tiny.run()
        assert run.stats.computed == 2 * once
        assert torch.equal(tiny.run(), latents)
        assert run.stats.computed == 3 * once
        assert not any(callable(vars(old).get(name)) for name in ("step", "set_timesteps"))
    assert torch.equal(latents, tiny.reference(schedule))
    assert "step" not in vars(tiny.pipe.scheduler)


def test_another_scheduler_with_another_number_of_steps_is_refused(pixart):
    with ecad.cached(pixart.pipe, pixart.random_schedule()):
        pixart.pipe.scheduler = diffusers.HeunDiscreteScheduler()
        with pytest.raises(ecad.ScheduleError, match=r"expected 4 steps, .* found 7"):
            pixart.run()


def test_another_transformer_is_refused_until_enabled_again(make):
    tiny, other = make.pixart(seed=1), make.pixart(seed=2)
    schedule = tiny.random_schedule()
    expected = other.reference(schedule)
    before = snapshot(other.pipe)
    ecad.enable_cache(tiny.pipe, schedule)
    tiny.pipe.transformer = other.pipe.transformer
    with pytest.raises(ecad.EcadError, match=r"transformer was replaced .* call enable_cache again"):
        tiny.run()
    with ecad.cached(tiny.pipe, schedule):
        assert torch.equal(tiny.run(), expected)
    assert snapshot(other.pipe) == before


def test_steps_that_do_not_match_are_refused_before_anything_runs(tiny):
    schedule = tiny.random_schedule(steps=4)
    expected, bare = tiny.reference(schedule), tiny.run(6)
    calls = tiny.count_calls()
    run = ecad.enable_cache(tiny.pipe, schedule)
    with pytest.raises(ecad.ScheduleError, match=r"'seed 0' does not fit this run.* expected 4 steps, .* found 6"):
        tiny.run(6)
    with pytest.raises(ecad.ScheduleError):
        tiny.pipe.scheduler.set_timesteps(7) if tiny.passes == 1 else tiny.run(7)
    assert calls.total() == 0
    assert torch.equal(tiny.run(4), expected)
    run.disable()
    assert torch.equal(tiny.run(6), bare)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda sites: sites[:-3],
            "block single_1, component single_attn: .* expected single_attn, .* 4 blocks, found no such .* 3 blocks",
        ),
        (
            lambda sites: [site for site in sites if site[1] != "full_ff"],
            "block 0, component full_ff: .* expected full_attn, full_ff, .*, found full_attn, full_ff_context",
        ),
        (
            lambda sites: (*sites, *(("single_2", name) for _, name in sites[-3:])),
            "block single_2, component single_attn: .* expected no such block among 4 blocks, found single_attn, ",
        ),
    ],
)
def test_other_sites_are_refused(flux, change, message):
    sites = change(tuple(flux.components))
    schedule = ecad.CacheSchedule(np.ones((4, len(sites)), dtype=bool), sites)
    before = snapshot(flux.pipe)
    with pytest.raises(ecad.ScheduleError, match=message):
        ecad.enable_cache(flux.pipe, schedule)
    assert snapshot(flux.pipe) == before


def test_a_schedule_of_another_family_is_refused_in_words(make):
    with pytest.raises(ecad.ScheduleError) as caught:
        ecad.enable_cache(make.flux().pipe, make.pixart().random_schedule())
    assert str(caught.value) == (
        "block 0, component full_attn: schedule 'seed 0' does not fit FluxTransformer2DModel; take one that was made "
        "for this model: expected full_attn, full_ff, full_ff_context among 4 blocks, found attn1, attn2, ff among 3 "
        "blocks"
    )


def test_a_custom_computation_is_refused_not_ignored(pixart):
    schedule = pixart.random_schedule().replace(
        custom_compute={(2, "1", "custom_compute_attn"): {"name": "average", "kwargs": {}}}
    )
    with pytest.raises(ecad.ScheduleError, match=r"step 002, block 1, component custom_compute_attn: .*found average"):
        ecad.enable_cache(pixart.pipe, schedule)


def test_a_pipeline_without_a_transformer_is_refused():
    with pytest.raises(ecad.EcadError, match="object cannot be cached: expected a diffusers pipeline"):
        ecad.enable_cache(object(), ecad.CacheSchedule([[True]], (("0", "ff"),)))


def forward(flux, seed: int = 0) -> torch.Tensor:
    """One call of the denoiser, outside any pipeline."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(1, *shape, generator=generator) for shape in ((4, 16), (5, 12), (6,))]
    ids = {"img_ids": torch.zeros(4, 3), "txt_ids": torch.zeros(5, 3), "guidance": torch.ones(1)}
    return flux.pipe.transformer(*inputs, torch.ones(1), **ids).sample


def test_gradients_bypass_the_cache(flux):
    run = ecad.enable_cache(flux.pipe.transformer, flux.schedule(np.zeros((2, len(flux.components)), dtype=bool)))
    blocks = flux.pipe.transformer.transformer_blocks
    with run.step(0), torch.no_grad():
        forward(flux)
    with run.step(1), torch.no_grad():
        forward(flux)
    for step in range(2):
        with run.step(step):
            forward(flux).sum().backward()
            assert all(parameter.grad is not None for parameter in blocks.parameters())
            flux.pipe.transformer.zero_grad()
    assert run.stats.computed == len(flux.components)
    assert run.stats.cached_bytes == 0


@torch.no_grad()
def test_a_direct_call_after_a_generation_is_not_cached(flux):
    bare = forward(flux)
    flux.run(6)
    with ecad.cached(flux.pipe, flux.schedule(np.zeros((4, len(flux.components)), dtype=bool))) as run:
        assert torch.equal(forward(flux), bare)
        flux.run()
        computed = run.stats.computed
        assert torch.equal(forward(flux), bare)
    assert run.stats.computed == computed == len(flux.components)


@torch.no_grad()
def test_a_generation_that_begins_where_an_aborted_one_broke_off(flux):
    """Image-to-image runs the last rows only."""
    scheduler = flux.pipe.scheduler
    bare = forward(flux, seed=1)
    with ecad.cached(flux.pipe, flux.schedule(np.zeros((4, len(flux.components)), dtype=bool))):
        scheduler.set_timesteps(4)
        for timestep in scheduler.timesteps[:2]:
            scheduler.step(forward(flux), timestep, torch.zeros(1, 4, 16))
        scheduler.set_timesteps(4)
        scheduler.set_begin_index(2)
        assert torch.equal(forward(flux, seed=1), bare)


def test_a_deep_copy_is_bare_and_apart(tiny):
    schedule, bare = tiny.random_schedule(), tiny.run()
    expected = tiny.reference(schedule)
    run = ecad.enable_cache(tiny.pipe, schedule)
    break_off(tiny, 2)  # so that outputs are kept while it is copied
    original, computed = tiny.pipe, run.stats.computed
    tiny.pipe = copy.deepcopy(original)
    assert torch.equal(tiny.run(), bare)
    assert run.stats.computed == computed
    with ecad.cached(tiny.pipe, schedule):
        assert torch.equal(tiny.run(), expected)
    for parameter in tiny.pipe.transformer.parameters():
        parameter.data.zero_()
    tiny.pipe = original
    assert torch.equal(tiny.run(), expected)


def test_an_enabled_pipeline_is_saved_as_if_it_were_bare(pixart, tmp_path):
    bare = pixart.run()
    ecad.enable_cache(pixart.pipe, pixart.random_schedule())
    pixart.run()
    pixart.pipe.transformer.save_pretrained(tmp_path / "transformer")
    pixart.pipe.scheduler.save_pretrained(tmp_path / "scheduler")
    pixart.pipe.transformer = diffusers.PixArtTransformer2DModel.from_pretrained(tmp_path / "transformer")
    pixart.pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_pretrained(tmp_path / "scheduler")
    assert torch.equal(pixart.run(), bare)


class Adapter(nn.Module):
    """What LoRA puts in a linear layer's place."""

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.down, self.up = nn.Linear(base_layer.in_features, 1), nn.Linear(1, base_layer.out_features)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.base_layer(hidden) + self.up(self.down(hidden))


@pytest.mark.parametrize("when", ["before", "after"])
def test_adapters_in_the_place_of_components(flux, when):
    schedule, bare = flux.random_schedule(), flux.reference(flux.random_schedule())
    blocks = flux.pipe.transformer.single_transformer_blocks
    if when == "after":
        run = ecad.enable_cache(flux.pipe, schedule)
        flux.run()
    torch.manual_seed(0)
    for index, block in enumerate(blocks):
        for name in ("proj_mlp", "proj_out"):
            setattr(block, name, Adapter(getattr(block, name)))
            flux.components[f"single_{index}", f"single_{name}"] = getattr(block, name)
    if when == "before":
        run = ecad.enable_cache(flux.pipe, schedule)
    computed = run.stats.computed
    adapted = flux.run()
    assert run.stats.computed - computed == expected_calls(flux, schedule)
    for block in blocks:
        for name in ("proj_mlp", "proj_out"):
            assert "forward" not in vars(getattr(block, name).base_layer)
            setattr(block, name, getattr(block, name).base_layer)
    assert torch.equal(flux.run(), bare)
    run.disable()
    for (key, name), module in flux.components.items():
        if isinstance(module, Adapter):
            setattr(blocks[int(key.removeprefix("single_"))], name.removeprefix("single_"), module)
    assert torch.equal(adapted, flux.reference(schedule))
    assert not torch.equal(adapted, bare)


def test_an_attention_that_returns_three_tensors(flux):
    """FLUX with an IP-adapter: image stream, text stream, and what the reference picture adds."""
    schedule = flux.random_schedule()
    without = flux.reference(schedule)
    torch.manual_seed(0)
    for block in flux.pipe.transformer.transformer_blocks:
        block.attn.set_processor(FluxIPAdapterAttnProcessor(hidden_size=16, cross_attention_dim=16))
    picture = {"joint_attention_kwargs": {"ip_hidden_states": [torch.randn(2, 1, 4, 16)], "ip_adapter_masks": None}}
    expected = flux.reference(schedule, **picture)
    with ecad.cached(flux.pipe, schedule):
        assert torch.equal(flux.run(**picture), expected)
    assert not torch.equal(expected, without)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["model", "sequential"])
def test_offloading(tiny, kind, when):
    """Accelerate wraps forwards; the pipeline throws its hooks away and sets them anew after each generation."""
    transformer = tiny.pipe.transformer
    schedule = tiny.random_schedule()
    expected, bare = tiny.reference(schedule), tiny.run()

    def offload():
        if kind == "model":
            accelerate.cpu_offload_with_hook(transformer, execution_device="cpu")
        else:
            accelerate.cpu_offload(transformer, execution_device=torch.device("cpu"))

    if when == "before":
        offload()
    run = ecad.enable_cache(tiny.pipe, schedule)
    if when == "after":
        offload()
    for generation in range(1, 4):
        assert torch.equal(tiny.run(), expected)
        assert run.stats.computed == generation * expected_calls(tiny, schedule)
        accelerate.hooks.remove_hook_from_module(transformer, recurse=True)
        offload()
    run.disable()
    assert torch.equal(tiny.run(), bare)
    accelerate.hooks.remove_hook_from_module(transformer, recurse=True)
    assert torch.equal(tiny.run(), bare)


def test_offloading_and_another_scheduler_at_once(pixart):
    schedule = pixart.random_schedule()
    accelerate.cpu_offload_with_hook(pixart.pipe.transformer, execution_device="cpu")
    run = ecad.enable_cache(pixart.pipe, schedule)
    accelerate.hooks.remove_hook_from_module(pixart.pipe.transformer, recurse=True)
    pixart.pipe.scheduler = diffusers.DDIMScheduler()
    pixart.run()
    assert run.stats.computed == expected_calls(pixart, schedule)


def test_a_pipeline_that_shares_the_transformer_shares_its_cache(flux):
    schedule = flux.random_schedule()
    run = ecad.enable_cache(flux.pipe, schedule)
    expected = flux.run()
    twin = diffusers.FluxPipeline(**flux.pipe.components)
    twin.set_progress_bar_config(disable=True)
    original, flux.pipe = flux.pipe, twin
    assert torch.equal(flux.run(), expected)
    assert run.stats.computed == 2 * expected_calls(flux, schedule)
    ecad.disable_cache(twin)
    assert "_ecad_run" not in vars(original)


class TwoDenoisers(diffusers.DiffusionPipeline):
    """The loop of Wan 2.2: one denoiser for high noise, then another, on one scheduler."""

    def __init__(self, transformer, transformer_2, scheduler) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, transformer_2=transformer_2, scheduler=scheduler)

    @torch.no_grad()
    def __call__(self, steps: int, switch: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(1, 4, 8, 8, generator=generator)
        text = torch.randn(1, 5, 12, generator=generator)
        self.scheduler.set_timesteps(steps)
        for index, timestep in enumerate(self.scheduler.timesteps):
            denoiser = self.transformer if index < switch else self.transformer_2
            conditions = {"resolution": None, "aspect_ratio": None}
            noise = denoiser(latents, text, timestep[None], conditions, return_dict=False)[0]
            latents = self.scheduler.step(noise.chunk(2, dim=1)[0], timestep, latents, return_dict=False)[0]
        return latents


def test_two_denoisers_have_a_schedule_each_and_one_clock(make):
    tinies = make.pixart(seed=1), make.pixart(seed=2, blocks=2)
    pipe = TwoDenoisers(*(tiny.pipe.transformer for tiny in tinies), diffusers.DDIMScheduler())
    schedules = [tiny.random_schedule(seed, steps=6) for seed, tiny in enumerate(tinies)]
    calls = [tiny.count_calls() for tiny in tinies]
    with pytest.raises(ecad.EcadError, match="several denoisers: expected a dict"):
        ecad.enable_cache(pipe, schedules[0])
    with pytest.raises(ecad.EcadError, match="no denoiser 'unet'"):
        ecad.enable_cache(pipe, {"unet": schedules[0]})
    with pytest.raises(ecad.ScheduleError, match=r"share its clock: .*found transformer 6, transformer_2 5"):
        ecad.enable_cache(pipe, {"transformer": schedules[0], "transformer_2": tinies[1].random_schedule(steps=5)})
    with ecad.cached(pipe, {"transformer": schedules[0], "transformer_2": schedules[1]}) as run:
        pipe(6, switch=3)
    # The second denoiser's first visit is in the fourth row.
    expected = executed(schedules[0].recompute[:3]).sum(), executed(schedules[1].recompute[3:]).sum()
    assert tuple(count.total() for count in calls) == expected
    assert run.stats.computed == sum(expected)
    assert run.stats.cached_bytes == 0
    for count in calls:
        count.clear()
    with ecad.cached(pipe, {"transformer_2": schedules[1]}):
        pipe(6, switch=3)
    assert [count.total() for count in calls] == [27, expected[1]]
