"""Tiny pipelines of kinds that a description file is for: two denoisers, and pictures as inputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKLWan,
    FluxControlPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from PIL import Image
from transformers import T5TokenizerFast, UMT5Config, UMT5EncoderModel

from ecad.builtin import FLUX_FOLDER, PIPELINE_FOLDER


def save_wan(folder: Path) -> None:
    """`wan22.json` and its pipeline: Wan 2.2, whose second denoiser takes over at low noise; videos."""
    torch.manual_seed(0)
    denoiser = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4}
    denoiser |= {"text_dim": 16, "freq_dim": 16, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32}
    vae = {"z_dim": 4, "dim_mult": [1] * 4, "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4, "num_res_blocks": 1}
    text = UMT5Config(vocab_size=2120, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    WanPipeline(
        tokenizer=T5TokenizerFast.from_pretrained(PIPELINE_FOLDER, subfolder="tokenizer"),
        text_encoder=UMT5EncoderModel(text),
        transformer=WanTransformer3DModel(**denoiser),
        transformer_2=WanTransformer3DModel(**denoiser),
        vae=AutoencoderKLWan(base_dim=3, **vae),
        scheduler=UniPCMultistepScheduler(**flow),
        boundary_ratio=0.875,
    ).save_pretrained(folder / "wan")
    facts = {"pipeline": "wan", "steps": 6, "height": 32, "width": 32, "guidance_scale": 4.0}
    call = {"num_frames": 5, "max_sequence_length": 16}
    (folder / "wan22.json").write_text(json.dumps({**facts, "call": call}))


def pictures(folder: Path) -> None:
    """`fox.png` and `mask.png`."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / "fox.png")
    Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 32, axis=1).repeat(64, axis=0)).save(folder / "mask.png")


def save_control(folder: Path, flux: Path = FLUX_FOLDER) -> None:
    """The folder `control`: a FLUX.1 pipeline with a control picture beside its latents."""
    pipe = FluxPipeline.from_pretrained(flux)
    config = {**pipe.transformer.config, "in_channels": 2 * pipe.transformer.config.in_channels}
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel.from_config(config | {"out_channels": pipe.transformer.config.in_channels})
    names = "vae", "text_encoder", "tokenizer", "scheduler", "text_encoder_2", "tokenizer_2"
    parts = {name: pipe.components[name] for name in names}
    FluxControlPipeline(transformer=transformer, **parts).save_pretrained(folder / "control")


def describe_flux(folder: Path, file: str, **facts: object) -> None:
    """A description of the built-in FLUX model, or of another class or folder."""
    known = {"pipeline": str(FLUX_FOLDER), "steps": 5, "guidance_scale": 3.0, "height": 64, "width": 64, **facts}
    known["call"] = {"max_sequence_length": 12, **known.get("call", {})}  # type: ignore[dict-item]
    (folder / file).write_text(json.dumps(known))
