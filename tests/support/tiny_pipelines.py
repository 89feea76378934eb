"""Tiny random pipelines of the real classes, and the slow, obvious interpreter that the runtime is held against."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial

import diffusers
import numpy as np
import pytest
import torch

from ecad.schedules import CacheSchedule, flux_sites, pixart_sites
from ecad.schedules.plan import executed
from ecad.sites.readers import readers

# Makes `zoo.py` and its like importable.


@dataclass
class Tiny:
    """A pipeline, where its components are (site -> module), how to run it, and how often its components ran."""

    pipe: diffusers.DiffusionPipeline
    components: dict
    call: dict
    passes: int = 1

    def run(self, steps: int = 4, batch: int = 2, **changes) -> torch.Tensor:
        """The latents that one generation ends with."""
        call = {**self.call, "num_inference_steps": steps, **changes}
        embeds = {
            key: value.repeat_interleave(batch, dim=0)
            for key, value in call.items()
            if key.endswith(("embeds", "mask"))
        }
        generator = torch.Generator().manual_seed(7)
        return self.pipe(**{**call, **embeds}, generator=generator, output_type="latent").images

    def schedule(self, bits: np.ndarray, name: str = "test") -> CacheSchedule:
        return CacheSchedule(bits, tuple(self.components), name=name)

    def random_schedule(self, seed: int = 0, steps: int = 4, share: float = 0.5) -> CacheSchedule:
        return self.schedule(np.random.default_rng(seed).random((steps, len(self.components))) < share, f"seed {seed}")

    def count_calls(self) -> Counter:
        """From now on, count every real run of every component."""
        calls = Counter()
        for site, module in self.components.items():
            module.forward = _counting(calls, site, module.forward)
        return calls

    def expected_calls(self, schedule: CacheSchedule) -> int:
        """Calls of components that one generation really needs."""
        return self.passes * executed(schedule.recompute, readers(schedule.sites)).sum()

    def snapshot(self) -> dict:
        """Everything about the pipeline that a cache could leave a trace in."""
        scheduler, transformer = self.pipe.scheduler, self.pipe.transformer
        modules = list(transformer.modules())
        return {
            "pipe": dict(vars(self.pipe)),
            "scheduler": {name: value for name, value in vars(scheduler).items() if callable(value)},
            "tree": [(path, id(module), type(module)) for path, module in transformer.named_modules()],
            "attributes": [set(vars(module)) for module in modules],
            "forwards": [vars(module).get("forward") for module in modules],
            "hooks": [
                (len(m._forward_pre_hooks), len(m._forward_hooks), len(m._forward_hooks_with_kwargs)) for m in modules
            ],
            "state": list(transformer.state_dict()),
        }

    def break_off(self, at: int) -> None:
        """Run a generation into an error in the middle of a denoiser forward."""
        forwards = []

        def fail(*_):
            forwards.append(None)
            if len(forwards) > at:
                raise KeyboardInterrupt

        handle = self.pipe.transformer.transformer_blocks[1].register_forward_pre_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            self.run()
        handle.remove()

    def reference(self, schedule: CacheSchedule, **changes) -> torch.Tensor:
        """What the schedule means: at each step, compute where the bit says so or nothing was kept; else replay."""
        transformer, forward, denoiser_calls, kept = self.pipe.transformer, self.pipe.transformer.forward, [], {}

        def count(*args, **kwargs):
            denoiser_calls.append(None)
            return forward(*args, **kwargs)

        def replaying(site, original):
            def replay(*args, **kwargs):
                step, which = divmod(len(denoiser_calls) - 1, self.passes)
                if schedule.recompute[step, schedule.sites.index(site)] or (which, site) not in kept:
                    kept[which, site] = original(*args, **kwargs)
                output = kept[which, site]
                return tuple(part.clone() for part in output) if isinstance(output, tuple) else output.clone()

            return replay

        transformer.forward = count
        for site, module in self.components.items():
            module.forward = replaying(site, module.forward)
        try:
            return self.run(schedule.num_steps, **changes)
        finally:
            for module in (transformer, *self.components.values()):
                del module.forward


def _counting(calls, site, forward):
    def counting(*args, **kwargs):
        calls[site] += 1
        return forward(*args, **kwargs)

    return counting


def _randomise(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights large enough that every component leaves its mark on the latents."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return module.eval()


def make_pixart(scheduler=None, seed: int = 0, blocks: int = 3, **call) -> Tiny:
    transformer = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=blocks,
        cross_attention_dim=16,
        caption_channels=12,
        sample_size=8,
        patch_size=2,
        norm_num_groups=1,
        use_additional_conditions=False,
    )
    pipe = diffusers.PixArtAlphaPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=None,
        transformer=_randomise(transformer, seed),
        scheduler=scheduler or diffusers.DPMSolverMultistepScheduler(),
    )
    pipe.set_progress_bar_config(disable=True)
    modules = [getattr(block, name) for block in transformer.transformer_blocks for name in ("attn1", "attn2", "ff")]
    embeds = torch.randn(2, 1, 5, 12, generator=torch.Generator().manual_seed(1))
    prompts = {"prompt_embeds": embeds[0], "negative_prompt_embeds": embeds[1]}
    prompts |= {"prompt_attention_mask": torch.ones(1, 5), "negative_prompt_attention_mask": torch.ones(1, 5)}
    size = {"height": 64, "width": 64, "use_resolution_binning": False}
    return Tiny(
        pipe,
        dict(zip(pixart_sites(blocks), modules, strict=True)),
        {"negative_prompt": None, **prompts, **size, **call},
    )


def make_flux(scheduler=None, seed: int = 0, two_passes: bool = False, blocks: tuple = (2, 2), **call) -> Tiny:
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=blocks[0],
        num_single_layers=blocks[1],
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=6,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 4),
    )
    pipe = diffusers.FluxPipeline(
        tokenizer=None,
        text_encoder=None,
        tokenizer_2=None,
        text_encoder_2=None,
        vae=None,
        transformer=_randomise(transformer, seed),
        scheduler=scheduler or diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    pipe.set_progress_bar_config(disable=True)
    modules = [
        *[getattr(block, name) for block in transformer.transformer_blocks for name in ("attn", "ff", "ff_context")],
        *[
            getattr(block, name)
            for block in transformer.single_transformer_blocks
            for name in ("attn", "proj_mlp", "proj_out")
        ],
    ]
    generator = torch.Generator().manual_seed(1)
    prompts = {"prompt_embeds": torch.randn(1, 5, 12, generator=generator)}
    prompts["pooled_prompt_embeds"] = torch.randn(1, 6, generator=generator)
    if two_passes:
        prompts["negative_prompt_embeds"] = torch.randn(1, 5, 12, generator=generator)
        prompts["negative_pooled_prompt_embeds"] = torch.randn(1, 6, generator=generator)
        call = {"true_cfg_scale": 3.0, **call}
    return Tiny(
        pipe,
        dict(zip(flux_sites(*blocks), modules, strict=True)),
        {**prompts, "height": 64, "width": 64, **call},
        passes=2 if two_passes else 1,
    )


@pytest.fixture
def pixart() -> Tiny:
    return make_pixart()


@pytest.fixture
def flux() -> Tiny:
    return make_flux()


TINY = {
    "pixart": make_pixart,
    "flux": make_flux,
    "flux_two_passes": partial(make_flux, two_passes=True),
    "flux_one_block": partial(make_flux, blocks=(1, 1)),
    "flux_two_passes_one_block": partial(make_flux, two_passes=True, blocks=(1, 1)),
}


@pytest.fixture(params=["pixart", "flux", "flux_two_passes"])
def tiny(request) -> Tiny:
    """Each in turn: PixArt (guidance as one batch), FLUX, and FLUX with guidance as two forwards a step."""
    return TINY[request.param]()


# Of `tiny` and the ways to compile a denoiser: each with one of the others, and all ways of one pipeline. Compiling
# takes as long as a model has blocks: several of them are compiled in one way, and one of each kind in the others.
COMPILED = [
    ("flux", "in place"),
    *(("flux_one_block", how) for how in ("wrapped", "after enabling")),
    ("pixart", "in place"),
    ("flux_two_passes_one_block", "after enabling"),
]


@pytest.fixture
def make():
    """The two builders: make.pixart(...), make.flux(...)."""

    class Make:
        pixart = staticmethod(make_pixart)
        flux = staticmethod(make_flux)

    return Make
