"""Export the trained parts into the package: a diffusers pipeline and a CLIPModel in half precision, and prompts.

python tools/export.py build            # all but the video model
python tools/export.py build --video    # the video model, whose other parts are those of the package
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    FluxTransformer2DModel,
    LatteTransformer3DModel,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
)
from transformers import CLIPImageProcessorPil, CLIPModel, T5EncoderModel, T5Tokenizer

from ecad.builtin import FLUX_FOLDER, JUDGE_FOLDER, PIPELINE_FOLDER, VIDEO_FOLDER
from ecad.utils.files import write_atomic
from emoji_data import caption, combinations
from train_denoiser import new_scheduler
from train_flux import new_pipeline
from video_data import video_caption, video_combinations

SEARCH_PROMPTS = HELD_OUT_PROMPTS = 48


def export_pipeline(folder: Path) -> None:
    """Assemble the pipeline from its four trained parts."""
    parts = folder / "denoiser"
    pipe = PixArtAlphaPipeline(
        tokenizer=T5Tokenizer.from_pretrained(parts / "tokenizer"),
        text_encoder=T5EncoderModel.from_pretrained(parts / "text_encoder"),
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        transformer=PixArtTransformer2DModel.from_pretrained(parts / "transformer"),
        scheduler=new_scheduler(),
    ).to(torch.float16)
    shutil.rmtree(PIPELINE_FOLDER, ignore_errors=True)
    pipe.save_pretrained(PIPELINE_FOLDER)


def export_flux(folder: Path) -> None:
    """Assemble the FLUX-like pipeline, with the other pipeline's T5 and VAE and the judge's text encoder."""
    transformer = FluxTransformer2DModel.from_pretrained(folder / "flux" / "distilled")
    shutil.rmtree(FLUX_FOLDER, ignore_errors=True)
    new_pipeline(folder, transformer).to(torch.float16).save_pretrained(FLUX_FOLDER)


def export_video(folder: Path) -> None:
    """The video model's transformer. Its other parts are the image pipeline's, which the package holds once."""
    shutil.rmtree(VIDEO_FOLDER, ignore_errors=True)
    transformer = LatteTransformer3DModel.from_pretrained(folder / "video" / "transformer")
    transformer.to(torch.float16).save_pretrained(VIDEO_FOLDER / "transformer")


def export_judge(folder: Path) -> None:
    """The judge with its tokenizer and image processor."""
    shutil.rmtree(JUDGE_FOLDER, ignore_errors=True)
    CLIPModel.from_pretrained(folder / "judge").to(torch.float16).save_pretrained(JUDGE_FOLDER)
    T5Tokenizer.from_pretrained(folder / "judge").save_pretrained(JUDGE_FOLDER)
    CLIPImageProcessorPil.from_pretrained(folder / "judge").save_pretrained(JUDGE_FOLDER)


def export_prompts() -> None:
    """Prompts for searches, and held-out prompts of combinations that training did not use."""
    rng = np.random.default_rng(4)

    def some(every: list[str], count: int) -> list[str]:
        return [every[i] for i in rng.permutation(len(every))[:count]]

    def images(held: bool) -> list[str]:
        return [caption(*parts) for parts in combinations(held=held)]

    def videos(held: bool) -> list[str]:
        return [video_caption(*parts) for parts in video_combinations(held=held)]

    chosen = {
        "search": some(images(False), SEARCH_PROMPTS),
        "held_out": some(images(True), HELD_OUT_PROMPTS),
        "video_search": some(videos(False), SEARCH_PROMPTS),
        "video_held_out": some(videos(True), HELD_OUT_PROMPTS),
    }
    write_atomic(PIPELINE_FOLDER.parent / "prompts.json", json.dumps(chosen, indent=1) + "\n")


def forget_origins() -> None:
    """Remove the path of the training folder from configurations."""
    for path in PIPELINE_FOLDER.parent.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "_name_or_path" in content:
            del content["_name_or_path"]
            write_atomic(path, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--video", action="store_true")
    args = parser.parse_args()
    exports = [export_video] if args.video else [export_pipeline, export_flux, export_judge]
    for export in exports:
        export(args.folder)
    export_prompts()
    forget_origins()
    for name in [VIDEO_FOLDER] if args.video else [PIPELINE_FOLDER, FLUX_FOLDER, JUDGE_FOLDER]:
        size = sum(path.stat().st_size for path in name.rglob("*") if path.is_file())
        print(f"{name.name}: {size / 1e6:.2f} MB")
