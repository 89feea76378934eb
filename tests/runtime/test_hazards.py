"""What people do to pipelines while a cache is enabled."""

from __future__ import annotations

import copy

import accelerate
import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor
from tiny_transformers import transformer
from torch import nn
from zoo import noise

import ecad
from ecad.schedules import CacheSchedule


@pytest.mark.parametrize("at", range(4))
def test_a_generation_after_an_aborted_one(tiny, at):
    schedule = tiny.random_schedule(at)
    expected = tiny.reference(schedule)
    run = ecad.enable_cache(tiny.pipe, schedule)
    tiny.break_off(at * tiny.passes)
    computed = run.stats.computed
    assert torch.equal(tiny.run(), expected)
    assert run.stats.computed - computed == tiny.expected_calls(schedule)
    assert run.stats.cached_bytes == 0


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
        tiny.break_off(2)
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
    with ecad.cached(pixart.pipe, pixart.random_schedule(), exact=True):
        pixart.pipe.scheduler = diffusers.HeunDiscreteScheduler()
        with pytest.raises(ecad.ScheduleError, match=r"expected 4 rows, .* found 7"):
            pixart.run()


def test_another_transformer_is_refused_until_enabled_again(make):
    tiny, other = make.pixart(seed=1), make.pixart(seed=2)
    schedule = tiny.random_schedule()
    expected = other.reference(schedule)
    before = other.snapshot()
    ecad.enable_cache(tiny.pipe, schedule)
    tiny.pipe.transformer = other.pipe.transformer
    with pytest.raises(ecad.EcadError, match=r"transformer was replaced .* call enable_cache again"):
        tiny.run()
    with ecad.cached(tiny.pipe, schedule):
        assert torch.equal(tiny.run(), expected)
    assert other.snapshot() == before


def forward(flux, seed: int = 0, time: float = 1.0) -> torch.Tensor:
    """One call of the denoiser, outside any pipeline."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(1, *shape, generator=generator) for shape in ((4, 16), (5, 12), (6,))]
    ids = {"img_ids": torch.zeros(4, 3), "txt_ids": torch.zeros(5, 3), "guidance": torch.ones(1)}
    return flux.pipe.transformer(*inputs, torch.full((1,), time), **ids).sample


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


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("time", [0.7, 0.5, 0.75, 1.0])
@torch.no_grad()
def test_a_callback_that_calls_the_denoiser_changes_nothing(flux, time, row):
    """The rows of the pipeline are at 1, 0.75, 0.5 and 0.25."""
    bare, schedule = forward(flux, time=time), flux.random_schedule(share=0.3)
    with ecad.cached(flux.pipe, schedule):
        expected, seen = flux.run(batch=1), []

        def call(pipe, step, timestep, tensors):
            if step == row:
                seen.append(forward(flux, time=time))
            return tensors

        assert torch.equal(flux.run(batch=1, callback_on_step_end=call), expected)
    assert len(seen) == 1
    assert torch.equal(seen[0], bare)


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
    tiny.break_off(2)  # so that outputs are kept while it is copied
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
    assert run.stats.computed - computed == flux.expected_calls(schedule)
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
        assert run.stats.computed == generation * tiny.expected_calls(schedule)
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
    assert run.stats.computed == pixart.expected_calls(schedule)


@torch.no_grad()
def test_a_denoiser_on_the_meta_device_reuses_shapes():
    model = transformer("SanaTransformer2DModel").to("meta")
    schedule = CacheSchedule.for_model(model, steps=2)
    bits = np.array([[True] * len(schedule.sites), [False] * len(schedule.sites)])
    run = ecad.enable_cache(model, CacheSchedule(bits, schedule.sites))
    given = noise(1, 4, 8, 8).to("meta"), noise(1, 5, 12).to("meta"), torch.ones(1, device="meta")
    for row in range(2):
        with run.step(row):
            assert model(*given).sample.is_meta
    assert (run.stats.computed, run.stats.reused) == (len(schedule.sites), len(schedule.sites))
    run.disable()
