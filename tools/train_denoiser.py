"""Train the built-in model's text encoder and PixArt transformer together, on precomputed latents.

python tools/train_denoiser.py build --minutes 240      # resumes from build/denoiser

The model predicts velocities (Salimans and Ho, arXiv 2202.00512). With noise prediction, a model this small does not
learn the text: the text matters most at high noise levels, where the loss of noise prediction is insensitive.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, PixArtTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import nn

from emoji_data import BACKGROUNDS, Sprite, caption, held_out, load_sprites, random_picture
from text import WIDTH, new_text_encoder, train_tokenizer
from train_vae import to_tensor
from training import Training, start_at_zero

VARIANTS = 8
TRANSFORMER = dict(
    num_attention_heads=4,
    attention_head_dim=32,
    in_channels=4,
    out_channels=4,
    num_layers=12,
    cross_attention_dim=128,
    caption_channels=WIDTH,
    sample_size=16,
    patch_size=2,
    norm_num_groups=8,
)


def new_scheduler() -> DPMSolverMultistepScheduler:
    """PixArt's sampler, configured for velocity prediction."""
    return DPMSolverMultistepScheduler(prediction_type="v_prediction")


def new_transformer() -> PixArtTransformer2DModel:
    """An untrained transformer."""
    model = PixArtTransformer2DModel(**TRANSFORMER)
    start_at_zero(model)
    return model


@dataclass
class Latents:
    """Training latents by combination: values float16 (combinations, variants, 4, 16, 16) and their captions."""

    values: torch.Tensor
    parts: list[tuple[str, str, str]]


def make_latents(folder: Path, sprites: list[Sprite]) -> Latents:
    """Encode `VARIANTS` random images of every combination that is not held out; cached in `folder`."""
    combos = [(s, b) for s in sprites for b in BACKGROUNDS if not held_out(s.name, s.style, b)]
    parts = [(s.name, s.style, b) for s, b in combos]
    cache = folder / "latents.safetensors"
    if not cache.exists():
        vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
        rng = np.random.default_rng(1)
        rows = []
        with torch.no_grad():
            for sprite, background in combos:
                pictures = np.stack([random_picture(sprite, background, rng) for _ in range(VARIANTS)])
                mean = vae.encode(to_tensor(pictures)).latent_dist.mean * vae.config.scaling_factor
                rows.append(mean.half())
        save_file({"latents": torch.stack(rows).contiguous()}, cache)
    return Latents(load_file(cache)["latents"], parts)


class Captions:
    """Token ids of captions. Parts are dropped at random, and the whole caption for classifier-free guidance."""

    def __init__(self, folder: Path, parts: list[tuple[str, str, str]]) -> None:
        self.tokenizer = train_tokenizer(folder / "npm")
        self.parts = parts

    def draw(self, index: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask, int64 (len(index), tokens), for the combinations `index`."""
        texts = []
        for i, u in zip(index, rng.random((len(index), 2)), strict=True):
            name, style, background = self.parts[i]
            full = (name, style if u[1] > 0.05 else None, background if u[1] < 0.95 else None)
            texts.append("" if u[0] < 0.1 else caption(*full))
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt")
        return tokens.input_ids, tokens.attention_mask


def velocity_loss(models: nn.ModuleDict, latents: Latents, captions: Captions) -> Callable[..., torch.Tensor]:
    """Mean squared error of the predicted velocity over a random batch."""
    alphas = new_scheduler().alphas_cumprod

    def loss(size: int, rng: np.random.Generator) -> torch.Tensor:
        index = rng.integers(len(latents.parts), size=size)
        clean = latents.values[index, rng.integers(VARIANTS, size=size)].float()
        ids, mask = captions.draw(index, rng)
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        t = torch.from_numpy(rng.integers(1000, size=size))
        alpha = alphas[t].sqrt().view(-1, 1, 1, 1)
        sigma = (1 - alphas[t]).sqrt().view(-1, 1, 1, 1)
        text = models["text_encoder"](ids, attention_mask=mask)[0]
        predicted = models["transformer"](alpha * clean + sigma * noise, text, t, encoder_attention_mask=mask).sample
        return F.mse_loss(predicted, alpha * noise - sigma * clean)

    return loss


def train(folder: Path, minutes: float, batch: int, rate: float) -> None:
    """Train both models for `minutes` in total over all runs, saving every few minutes."""
    torch.manual_seed(0)
    latents = make_latents(folder, load_sprites(folder / "npm"))
    captions, out = Captions(folder, latents.parts), folder / "denoiser"
    text_encoder = new_text_encoder(captions.tokenizer)
    models = nn.ModuleDict({"transformer": new_transformer(), "text_encoder": text_encoder})

    def export() -> None:
        for name, model in models.items():
            model.save_pretrained(out / name)
        captions.tokenizer.save_pretrained(out / "tokenizer")

    Training(out, models, velocity_loss(models, latents, captions), export, rate).run(minutes, batch)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=240)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    train(args.folder, args.minutes, args.batch, args.rate)
