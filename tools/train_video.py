"""Train the built-in video model: a Latte transformer on latents of moving emoji.

python tools/train_video.py build --minutes 60      # resumes from build/video

Text encoder and VAE are those of the image model, frozen, as they are in the package. Each step trains on clips and,
with the temporal blocks left out, on single frames: a frame costs an eighth of a clip, and what an emoji looks like is
most of what there is to learn (joint training of images and video, as in Latte, arXiv 2401.03048).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, LatteTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import T5EncoderModel, T5Tokenizer

from ecad.builtin import PIPELINE_FOLDER
from train_denoiser import new_scheduler
from train_vae import to_tensor
from training import Training, start_at_zero
from video_data import BACKGROUNDS, FRAMES, OPPOSITES, STYLE, held_out, random_clip, video_caption, video_sprites

VARIANTS = 3
MAX_TOKENS = 16
# Single frames per clip in a step.
STILLS = 4
TRANSFORMER = dict(
    num_attention_heads=2,
    attention_head_dim=32,
    in_channels=4,
    out_channels=8,  # as in Latte, whose pipeline drops the second half
    num_layers=4,
    cross_attention_dim=64,
    attention_bias=True,
    sample_size=16,
    patch_size=2,
    activation_fn="gelu-approximate",
    norm_type="ada_norm_single",
    norm_elementwise_affine=False,
    norm_eps=1e-6,
    caption_channels=128,
    video_length=FRAMES,
)


def new_transformer() -> LatteTransformer3DModel:
    """An untrained transformer."""
    model = LatteTransformer3DModel(**TRANSFORMER)
    start_at_zero(model, model.temporal_transformer_blocks)
    return model


@dataclass
class Clips:
    """Latents, float16 (clips, variants, FRAMES, 4, 16, 16), and name, background and movement of each clip."""

    values: Tensor
    parts: list[tuple[str, str, str]]


def make_clips(folder: Path) -> Clips:
    """Encode `VARIANTS` random clips of every combination that is not held out; cached in `folder`."""
    sprites = video_sprites(folder / "npm")
    combos = [(s, b, m) for s in sprites for b in BACKGROUNDS for m in OPPOSITES if not held_out(s.name, STYLE, b)]
    cache = folder / "clips.safetensors"
    if not cache.exists():
        vae = AutoencoderKL.from_pretrained(PIPELINE_FOLDER / "vae").float().eval()
        rng = np.random.default_rng(6)
        rows = []
        with torch.no_grad():
            for combo in combos:
                pictures = np.concatenate([random_clip(*combo, rng) for _ in range(VARIANTS)])
                mean = vae.encode(to_tensor(pictures)).latent_dist.mean * vae.config.scaling_factor
                rows.append(mean.half().unflatten(0, (VARIANTS, FRAMES)))
        save_file({"clips": torch.stack(rows).contiguous()}, cache)
    return Clips(load_file(cache)["clips"], [(s.name, b, m) for s, b, m in combos])


class Captions:
    """The frozen text encoder, and captions with parts dropped at random, for classifier-free guidance."""

    def __init__(self) -> None:
        self.tokenizer = T5Tokenizer.from_pretrained(PIPELINE_FOLDER / "tokenizer")
        self.encoder = T5EncoderModel.from_pretrained(PIPELINE_FOLDER / "text_encoder").float().eval()

    @torch.no_grad()
    def encode(self, texts: list[str]) -> Tensor:
        """Embeddings (texts, MAX_TOKENS, 128), zero where there is no token."""
        found = self.tokenizer(texts, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt")
        return self.encoder(found.input_ids, attention_mask=found.attention_mask)[0] * found.attention_mask[..., None]

    def draw(self, parts: list[tuple[str, str, str | None]], rng: np.random.Generator) -> Tensor:
        """Embeddings of the captions of `parts`; one in ten is empty, and one in ten lacks its background."""
        texts = [
            "" if whole < 0.1 else video_caption(name, background if part > 0.1 else None, movement)
            for (name, background, movement), (whole, part) in zip(parts, rng.random((len(parts), 2)), strict=True)
        ]
        return self.encode(texts)


def draw(clips: Clips, size: int, rng: np.random.Generator) -> tuple[Tensor, list[tuple[str, str, str]]]:
    """Clips (size, FRAMES, 4, 16, 16) and what they show; half of those with an opposite are played backwards."""
    index = rng.integers(len(clips.parts), size=size)
    values = clips.values[index, rng.integers(VARIANTS, size=size)].float()
    parts = []
    for place, (i, backwards) in enumerate(zip(index, rng.random(size) < 0.5, strict=True)):
        name, background, movement = clips.parts[i]
        opposite = OPPOSITES[movement]
        if backwards and opposite is not None:
            values[place] = values[place].flip(0)
            movement = opposite
        parts.append((name, background, movement))
    return values, parts


def velocity_loss(model: LatteTransformer3DModel, clips: Clips, captions: Captions) -> Callable[..., Tensor]:
    """Mean squared error of the predicted velocity (arXiv 2202.00512), of clips and of single frames."""
    alphas = new_scheduler().alphas_cumprod

    def of(clean: Tensor, text: Tensor, temporal: bool, rng: np.random.Generator) -> Tensor:
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        # More of the noisier steps: there the text decides where the picture goes.
        t = torch.from_numpy((1000 * np.sqrt(rng.random(len(clean)))).astype(np.int64))
        alpha = alphas[t].sqrt().view(-1, 1, 1, 1, 1)
        sigma = (1 - alphas[t]).sqrt().view(-1, 1, 1, 1, 1)
        noisy = alpha * clean + sigma * noise
        predicted = model(noisy, t, text, enable_temporal_attentions=temporal).sample[:, :4]
        return F.mse_loss(predicted, alpha * noise - sigma * clean)

    def loss(size: int, rng: np.random.Generator) -> Tensor:
        values, parts = draw(clips, size, rng)
        moving = of(values.transpose(1, 2), captions.draw(parts, rng), True, rng)
        values, parts = draw(clips, size * STILLS, rng)
        frames = values[torch.arange(len(values)), rng.integers(FRAMES, size=len(values))].unsqueeze(2)
        still = of(frames, captions.draw([(n, b, None) for n, b, _ in parts], rng), False, rng)
        return moving + still

    return loss


def main(folder: Path, minutes: float, batch: int, rate: float) -> None:
    torch.manual_seed(0)
    model, out = new_transformer(), folder / "video"
    loss = velocity_loss(model, make_clips(folder), Captions())
    models = nn.ModuleDict({"transformer": model})
    Training(out, models, loss, lambda: model.save_pretrained(out / "transformer"), rate).run(minutes, batch)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=6, help="clips in a step")
    parser.add_argument("--rate", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    main(args.folder, args.minutes, args.batch, args.rate)
