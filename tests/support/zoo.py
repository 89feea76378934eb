"""Tiny random pipelines of diffusers' own classes, one row a pipeline: what every family's tests run on.

A row says where the components are in its own words, so that what the runtime finds can be held against it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
import torch
from tiny_transformers import transformer
from torch import nn

from ecad.schedules import CacheSchedule

STEPS = 4


@dataclass
class Specimen:
    """A pipeline, how to call it, and where its components are.

    Attributes:
        pipe: a pipeline of diffusers'.
        blocks: list path, or block path with {} for the index -> the components of its blocks, both in running order.
        call: what the pipeline is called with.
        passes: forwards in each row.
        rows: rows of the scheduler.
        begin: rows that the pipeline leaves out at the start (image-to-image).
        denoisers: what the pipeline calls its denoisers.
        names: list path -> what a schedule calls its blocks, and writes before their components.
        interleaved: block 0 of every list runs before block 1 of any.
    """

    pipe: Any
    blocks: dict[str, str]
    call: dict[str, Any]
    passes: int = 1
    rows: int = STEPS
    begin: int = 0
    denoisers: tuple[str, ...] = ("transformer",)
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    interleaved: bool = False

    def run(self) -> torch.Tensor:
        """The latents that one generation ends with."""
        call = {"num_inference_steps": STEPS, "output_type": "latent", "return_dict": False, **self.call}
        torch.manual_seed(7)  # some pipelines do not hand the generator on to their scheduler
        output = self.pipe(generator=torch.Generator().manual_seed(7), **call)[0]
        return torch.stack([torch.as_tensor(image) for image in output])

    def components(self, denoiser: str = "transformer") -> dict[tuple[str, str], nn.Module]:
        """Site -> module, in gene order."""
        transformer = getattr(self.pipe, denoiser)
        lists = {path: getattr(transformer, path.split(".")[0]) for path in self.blocks}
        blocks = [(path, index) for path in self.blocks for index in range(len(lists[path]))]
        if self.interleaved:
            blocks.sort(key=lambda block: block[1])
        found = {}
        for path, index in blocks:
            place = path if "{}" in path else path + ".{}"
            key, prefix = self.names.get(path, (place, ""))
            for entry in self.blocks[path].split():
                name, _, called = entry.partition("=")
                module = getattr(transformer.get_submodule(place.format(index)), name)
                if module is not None:
                    found[key.format(index), prefix + (called or name)] = module
        return found

    def schedules(self, seed: int | None) -> dict[str, CacheSchedule]:
        """For each denoiser a random schedule, or one that recomputes everything."""
        drawn = np.random.default_rng(seed)
        sites = {name: tuple(self.components(name)) for name in self.denoisers}
        shapes = {name: (self.rows, len(sites[name])) for name in self.denoisers}
        return {
            name: CacheSchedule(np.ones(shape, bool) if seed is None else drawn.random(shape) < 0.5, sites[name])
            for name, shape in shapes.items()
        }


def pipeline(name: str, model: str | nn.Module, scheduler: Any, **parts: Any) -> Any:
    """A pipeline of these parts, without those that it has no use for here."""
    cls = getattr(diffusers, name)
    needed = [key for key, value in inspect.signature(cls.__init__).parameters.items() if value.default is value.empty]
    parts |= {"transformer": transformer(model) if isinstance(model, str) else model, "scheduler": scheduler}
    pipe = cls(**dict.fromkeys(needed[1:]) | parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    """Anything that a call needs a tensor for."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def text(
    *prefixes: str, mask: str | None = None, mask_dtype: torch.dtype = torch.long, pooled: bool = False
) -> dict[str, torch.Tensor]:
    """Embeddings of a prompt, and of a negative one: five tokens of width 12."""
    parts: dict[str, torch.Tensor] = {}
    for seed, prefix in enumerate(prefixes):
        parts[prefix + "prompt_embeds"] = noise(1, 5, 12, seed=seed)
        if pooled:
            parts[prefix + "pooled_prompt_embeds"] = noise(1, 6, seed=seed)
        if mask:
            parts[prefix + mask] = torch.ones(1, 5, dtype=mask_dtype)
    return parts


def autoencoder(kind: str = "AutoencoderKL", **parts: Any) -> nn.Module:
    """Eight pixels to a latent one, four channels."""
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    sizes = {"block_out_channels": [4] * 4, "norm_num_groups": 1, "latent_channels": 4}
    return getattr(diffusers, kind)(**blocks, **sizes, **parts).eval()


FLOW = diffusers.FlowMatchEulerDiscreteScheduler
SIZE = {"height": 64, "width": 64}
VIDEO = {**SIZE, "num_frames": 5}
PICTURE = noise(1, 3, 64, 64)
BOTH = ("", "negative_")


def pixart(name: str) -> Specimen:
    call = {**text(*BOTH, mask="prompt_attention_mask"), **SIZE, "negative_prompt": None}
    return Specimen(
        pipeline(name, "PixArtTransformer2DModel", diffusers.DPMSolverMultistepScheduler()),
        {"transformer_blocks": "attn1 attn2 ff"},
        {**call, "use_resolution_binning": False},
        names={"transformer_blocks": ("{}", "")},
    )


def flux(
    name: str = "FluxPipeline",
    model: dict[str, Any] | None = None,
    vae: nn.Module | None = None,
    passes: int = 1,
    begin: int = 0,
    **call: Any,
) -> Specimen:
    return Specimen(
        pipeline(name, transformer("FluxTransformer2DModel", **model or {}), FLOW(), vae=vae),
        {"transformer_blocks": "attn ff ff_context", "single_transformer_blocks": "attn proj_mlp proj_out"},
        {**text("", pooled=True), **SIZE, **call},
        passes,
        begin=begin,
        names={"transformer_blocks": ("{}", "full_"), "single_transformer_blocks": ("single_{}", "single_")},
    )


def flux2(name: str, *negative: str, passes: int = 1) -> Specimen:
    model, vae = transformer("Flux2Transformer2DModel", guidance_embeds=passes == 1), autoencoder("AutoencoderKLFlux2")
    pipe = pipeline(name, model, FLOW(), vae=vae)
    blocks = {"transformer_blocks": "attn ff ff_context", "single_transformer_blocks": "attn"}
    return Specimen(pipe, blocks, {**text("", *negative), **SIZE}, passes)


def dit() -> Specimen:
    pipe = pipeline("DiTPipeline", "DiTTransformer2DModel", diffusers.DDIMScheduler(), vae=autoencoder())
    return Specimen(pipe, {"transformer_blocks": "attn1 ff"}, {"class_labels": [3], "output_type": "np"})


class Loop:
    """A hand-written loop, for models whose own pipeline asks for more than a few tensors."""

    def __init__(self, model: nn.Module, latents: tuple[int, ...], time: str = "timestep", **inputs: Any) -> None:
        self.transformer, self.scheduler, self.latents, self.time, self.inputs = model, FLOW(), latents, time, inputs

    @torch.no_grad()
    def __call__(self, num_inference_steps: int, generator: torch.Generator, **_: Any) -> tuple[torch.Tensor]:
        latents = torch.randn(self.latents, generator=generator)
        self.scheduler.set_timesteps(num_inference_steps)
        for timestep in self.scheduler.timesteps:
            inputs = {self.time: timestep[None], **self.inputs}
            flow = self.transformer(latents, **inputs, return_dict=False)[0]
            latents = self.scheduler.step(flow, timestep, latents, return_dict=False)[0]
        return (latents,)


def vace() -> Specimen:
    inputs = {"encoder_hidden_states": noise(1, 5, 12), "control_hidden_states": noise(1, 8, 2, 8, 8)}
    pipe = Loop(transformer("WanVACETransformer3DModel"), (1, 4, 2, 8, 8), **inputs)
    return Specimen(pipe, {"vace_blocks": "attn1 attn2 ffn", "blocks": "attn1 attn2 ffn"}, {})


def latte() -> Specimen:
    return Specimen(
        pipeline("LattePipeline", "LatteTransformer3DModel", diffusers.DDIMScheduler()),
        {"transformer_blocks": "attn1 attn2 ff", "temporal_transformer_blocks": "attn1 ff"},
        {**text(*BOTH), **SIZE, "negative_prompt": None, "video_length": 2, "mask_feature": False},
        interleaved=True,
    )


def stable_diffusion_3() -> Specimen:
    pipe = pipeline("StableDiffusion3Pipeline", "SD3Transformer2DModel", FLOW())
    return Specimen(pipe, {"transformer_blocks": "attn attn2 ff ff_context"}, {**text(*BOTH, pooled=True), **SIZE})


def hunyuan_video() -> Specimen:
    return Specimen(
        pipeline("HunyuanVideoPipeline", "HunyuanVideoTransformer3DModel", FLOW()),
        {"transformer_blocks": "attn ff ff_context", "single_transformer_blocks": "attn proj_mlp proj_out"},
        {**text(*BOTH, mask="prompt_attention_mask", pooled=True), **VIDEO, "true_cfg_scale": 3.0},
        passes=2,
    )


def wan(name: str, begin: int = 0, **call: Any) -> Specimen:
    pipe = pipeline(name, "WanTransformer3DModel", diffusers.UniPCMultistepScheduler())
    return Specimen(pipe, {"blocks": "attn1 attn2 ffn"}, {**text(*BOTH), **SIZE, **call}, passes=2, begin=begin)


def wan_2_2() -> Specimen:
    pipe = pipeline(
        "WanPipeline",
        "WanTransformer3DModel",
        FLOW(),
        transformer_2=transformer("WanTransformer3DModel", seed=1),
        boundary_ratio=0.5,
    )
    return Specimen(
        pipe,
        {"blocks": "attn1 attn2 ffn"},
        {**text(*BOTH), **VIDEO},
        passes=2,
        denoisers=("transformer", "transformer_2"),
    )


def qwen_image() -> Specimen:
    return Specimen(
        pipeline("QwenImagePipeline", "QwenImageTransformer2DModel", FLOW()),
        {"transformer_blocks": "attn img_mlp txt_mlp"},
        {**text(*BOTH, mask="prompt_embeds_mask"), **SIZE, "true_cfg_scale": 3.0},
        passes=2,
    )


def ltx() -> Specimen:
    pipe = pipeline("LTXPipeline", "LTXVideoTransformer3DModel", FLOW())
    call = {**text(*BOTH, mask="prompt_attention_mask"), "height": 128, "width": 128, "num_frames": 9}
    return Specimen(pipe, {"transformer_blocks": "attn1 attn2 ff"}, call)


def cogvideox() -> Specimen:
    pipe = pipeline("CogVideoXPipeline", "CogVideoXTransformer3DModel", diffusers.CogVideoXDDIMScheduler())
    return Specimen(pipe, {"transformer_blocks": "attn1 ff"}, {**text(*BOTH), **VIDEO})


def z_image() -> Specimen:
    prompts = {name: [embeds[0]] for name, embeds in text(*BOTH).items()}
    pair = "attention feed_forward"
    return Specimen(
        pipeline("ZImagePipeline", "ZImageTransformer2DModel", FLOW()),
        {"noise_refiner": pair, "context_refiner": pair, "layers": pair},
        {**prompts, **SIZE},
    )


def sana() -> Specimen:
    prompts = text(*BOTH, mask="prompt_attention_mask")
    return Specimen(
        pipeline("SanaPipeline", "SanaTransformer2DModel", diffusers.DPMSolverMultistepScheduler()),
        {"transformer_blocks": "attn1 attn2 ff"},
        {**prompts, "height": 256, "width": 256, "use_resolution_binning": False, "negative_prompt": None},
    )


def aura_flow() -> Specimen:
    return Specimen(
        pipeline("AuraFlowPipeline", "AuraFlowTransformer2DModel", FLOW()),
        {"joint_transformer_blocks": "attn ff ff_context", "single_transformer_blocks": "attn ff"},
        {**text(*BOTH, mask="prompt_attention_mask"), **SIZE},
    )


def lumina_2() -> Specimen:
    pair = "attn feed_forward"
    return Specimen(
        pipeline("Lumina2Pipeline", "Lumina2Transformer2DModel", FLOW()),
        {"context_refiner": pair, "noise_refiner": pair, "layers": pair},
        {**text(*BOTH, mask="prompt_attention_mask"), **SIZE},
        passes=2,
    )


def chroma() -> Specimen:
    return Specimen(
        pipeline("ChromaPipeline", "ChromaTransformer2DModel", FLOW()),
        {"transformer_blocks": "attn ff ff_context", "single_transformer_blocks": "attn proj_mlp proj_out"},
        {**text(*BOTH, mask="prompt_attention_mask", mask_dtype=torch.float), **SIZE},
        passes=2,
    )


# A new pipeline is one row.
ZOO: dict[str, Callable[[], Specimen]] = {
    "PixArt-alpha": lambda: pixart("PixArtAlphaPipeline"),
    "PixArt-Sigma": lambda: pixart("PixArtSigmaPipeline"),
    "FLUX.1 dev": flux,
    "FLUX.1 dev, true guidance": lambda: flux(passes=2, true_cfg_scale=3.0, **text("negative_", pooled=True)),
    "FLUX.1 schnell": lambda: flux(model={"guidance_embeds": False}),
    "FLUX.1 img2img": lambda: flux(
        "FluxImg2ImgPipeline", vae=autoencoder(shift_factor=0.0), begin=2, strength=0.5, image=PICTURE
    ),
    "FLUX.1 inpaint": lambda: flux(
        "FluxInpaintPipeline",
        vae=autoencoder(shift_factor=0.0),
        begin=2,
        strength=0.5,
        image=PICTURE,
        mask_image=PICTURE[:, :1].abs(),
    ),
    "FLUX.1 control": lambda: flux(
        "FluxControlPipeline",
        {"in_channels": 32, "out_channels": 16},
        vae=autoencoder(shift_factor=0.0),
        control_image=PICTURE,
    ),
    "FLUX.1 Kontext": lambda: flux(
        "FluxKontextPipeline", vae=autoencoder(shift_factor=0.0), image=PICTURE, max_area=64 * 64, _auto_resize=False
    ),
    "FLUX.2": lambda: flux2("Flux2Pipeline"),
    "FLUX.2 klein": lambda: flux2("Flux2KleinPipeline", "negative_", passes=2),
    "DiT": dit,
    "Latte": latte,
    "Stable Diffusion 3.5": stable_diffusion_3,
    "HunyuanVideo": hunyuan_video,
    "Wan 2.1": lambda: wan("WanPipeline", num_frames=5),
    "Wan 2.2": wan_2_2,
    "Wan video-to-video": lambda: wan("WanVideoToVideoPipeline", begin=2, strength=0.5, latents=noise(1, 4, 2, 8, 8)),
    "Wan VACE": vace,
    "QwenImage": qwen_image,
    "LTX": ltx,
    "CogVideoX": cogvideox,
    "Z-Image": z_image,
    "Sana": sana,
    "AuraFlow": aura_flow,
    "Lumina 2": lumina_2,
    "Chroma": chroma,
}
