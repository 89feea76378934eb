"""Whole steps on UNets in full with random weights on a CPU: the same bits when all is computed, and processor time.

python benchmarks/unets.py [--model sd15|sdxl] [--pixels 256] [--dtype float32|bfloat16] [--steps 6] [--rounds 2]

The pipeline's own loop, without text encoders and VAE; guidance as one batch of two. All variants run by turns.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # processor time of one thread; read by the first import of torch

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import torch

import ecad
from ecad.schedules import heuristics
from ecad.sites.names import DENOISER_SITES
from ecad.utils.files import write_atomic

# The published configurations; everything else is UNet2DConditionModel's default.
SD15 = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SDXL = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def make_pipeline(model: str, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """A pipeline with random weights, and its call with random embeddings."""
    torch.manual_seed(0)
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**(SDXL if model == "sdxl" else SD15))
    unet = unet.to(dtype).to_empty(device="cpu").eval()
    with torch.no_grad():
        for tensor in (*unet.parameters(), *unet.buffers()):
            tensor.uniform_(-0.02, 0.02)
    scheduler = diffusers.DPMSolverMultistepScheduler()
    embeds = torch.randn(2, 1, 77, unet.config.cross_attention_dim, dtype=dtype)
    call = {"prompt_embeds": embeds[0], "negative_prompt_embeds": embeds[1]}
    parts: dict[str, Any] = {"vae": None, "text_encoder": None, "tokenizer": None, "unet": unet, "scheduler": scheduler}
    if model == "sdxl":
        pooled = torch.randn(2, 1, 1280, dtype=dtype)
        call |= {"pooled_prompt_embeds": pooled[0], "negative_pooled_prompt_embeds": pooled[1]}
        parts |= {"text_encoder_2": None, "tokenizer_2": None, "add_watermarker": False}
        pipe: Any = diffusers.StableDiffusionXLPipeline(**parts)
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipe = diffusers.StableDiffusionPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe, call


def main() -> None:
    """Parse the arguments, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("sd15", "sdxl"), default="sd15")
    parser.add_argument("--pixels", type=int, default=256, help="width and height of the image")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, help="build/benchmarks/unets_MODEL_DTYPE.json by default")
    args = parser.parse_args()
    pipe, call = make_pipeline(args.model, getattr(torch, args.dtype))
    call |= {"height": args.pixels, "width": args.pixels, "num_inference_steps": args.steps, "output_type": "latent"}
    every = [heuristics.every_n(DENOISER_SITES, args.steps, n).replace(forecast=True) for n in (1, 2, 3)]
    variants = {"bare": None, **{schedule.name: schedule for schedule in every}}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    latents: dict[str, torch.Tensor] = {}
    for _ in range(args.rounds):
        for name, schedule in variants.items():
            start = time.process_time()
            run = None if schedule is None else ecad.enable_cache(pipe, schedule)
            found = pipe(**call, generator=torch.Generator().manual_seed(0)).images
            ecad.disable_cache(pipe)
            seconds[name].append(time.process_time() - start)
            computed = args.steps if run is None else run.stats.computed
            same = torch.equal(latents.setdefault(name, found), found)
            exact = torch.equal(latents["bare"], found)
            print(
                f"{name:10} {seconds[name][-1]:8.1f} s, {computed} forwards, as before {same}, as bare {exact}",
                flush=True,
            )
    rows = [
        {
            "schedule": schedule.name,
            "theoretical": args.steps / int(schedule.recompute.sum()),
            "measured": median(seconds["bare"]) / median(seconds[schedule.name]),
            "same_bits_as_bare": torch.equal(latents["bare"], latents[schedule.name]),
        }
        for schedule in every
    ]
    for row in rows:
        print(row)
    size = sum(parameter.numel() for parameter in pipe.unet.parameters())
    result = {"settings": {**vars(args), "output": None}, "parameters": size, "rows": rows, "seconds": seconds}
    output = args.output or Path(f"build/benchmarks/unets_{args.model}_{args.dtype}.json")
    write_atomic(output, json.dumps(result, indent=1) + "\n")
    print(f"{size:,} parameters; written to {output}")


if __name__ == "__main__":
    main()
