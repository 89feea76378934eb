"""Cache a video pipeline: CogVideoX.

    python examples/video_pipeline.py                               # tiny, random weights: shows that it works
    python examples/video_pipeline.py --model THUDM/CogVideoX-2b --steps 50 --height 480 --width 720 --frames 49

Without a schedule of your own every second step is reused; `ecad.search` finds better ones (docs/your-own-model.md).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from diffusers import CogVideoXPipeline
from PIL import Image

import ecad
from ecad.quality.video import flicker, score_frames
from ecad.schedules import heuristics


def tiny_pipeline() -> CogVideoXPipeline:
    """A CogVideoX of some kilobytes that makes noise."""
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    from ecad.builtin import PIPELINE_FOLDER

    torch.manual_seed(0)
    text = T5Config(vocab_size=2120, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return CogVideoXPipeline(
        tokenizer=T5TokenizerFast.from_pretrained(PIPELINE_FOLDER, subfolder="tokenizer"),
        text_encoder=T5EncoderModel(text).eval(),
        vae=AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
        ).eval(),
        transformer=CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            time_embed_dim=8,
            text_embed_dim=16,
            num_layers=2,
            sample_width=8,
            sample_height=8,
            sample_frames=9,
        ).eval(),
        scheduler=CogVideoXDDIMScheduler(),
    )


def make(pipe: CogVideoXPipeline, flags: argparse.Namespace) -> tuple[np.ndarray, float]:
    """A video, uint8 (frames, height, width, 3), and the seconds that it took."""
    call: dict[str, Any] = {"height": flags.height, "width": flags.width, "num_frames": flags.frames}
    began = time.perf_counter()
    video = pipe(
        flags.prompt,
        num_inference_steps=flags.steps,
        generator=torch.Generator("cpu").manual_seed(0),
        output_type="np",
        **call,
    ).frames[0]
    return np.round(255 * video).astype(np.uint8), time.perf_counter() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="hub id or folder of a CogVideoX pipeline")
    parser.add_argument("--schedule", help="file; every second step otherwise")
    parser.add_argument("--prompt", default="a fox runs through the snow")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--output", default="video.gif")
    flags = parser.parse_args()

    if flags.model is None:
        pipe = tiny_pipeline()
    else:
        pipe = CogVideoXPipeline.from_pretrained(flags.model, dtype=torch.bfloat16)
        if torch.cuda.is_available():
            pipe.enable_model_cpu_offload()
    pipe.set_progress_bar_config(disable=True)
    sites = ecad.CacheSchedule.for_model(pipe, flags.steps).sites
    schedule = ecad.CacheSchedule.load(flags.schedule) if flags.schedule else heuristics.every_n(sites, flags.steps, 2)

    make(pipe, flags)  # warm up
    uncached, slow = make(pipe, flags)
    with ecad.cached(pipe, schedule) as run:
        cached, fast = make(pipe, flags)
        print(f"{schedule}: {run.stats.computed} calls computed, {run.stats.reused} reused")
        print(f"kept at most {run.memory() / 1e6:.2f} MB; {slow:.2f} s uncached, {fast:.2f} s cached")
    scores = score_frames(cached, uncached)
    print(f"PSNR to the uncached video: {scores.mean:.1f} dB, {scores.worst:.1f} dB in frame {scores.worst_frame}")
    print(f"flicker against it: {flicker(cached, uncached).mean():.2f} of 255")
    frames = [Image.fromarray(frame) for frame in cached]
    frames[0].save(flags.output, save_all=True, append_images=frames[1:], duration=125)
