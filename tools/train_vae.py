"""Train the built-in model's AutoencoderKL: 64x64 RGB to 16x16x4 latents and back (a quarter of an hour on one core).

python tools/train_vae.py build
python tools/train_vae.py build --frozen-encoder     # sharpen the decoder; latents do not change
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from emoji_data import BACKGROUNDS, Sprite, load_sprites, random_picture

CONFIG = dict(
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    block_out_channels=(16, 32, 64),
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    layers_per_block=1,
    norm_num_groups=8,
    sample_size=64,
    mid_block_add_attention=False,
    force_upcast=False,
)


def picture_batch(sprites: list[Sprite], size: int, rng: np.random.Generator) -> torch.Tensor:
    """`size` random training images, float32 in [-1, 1], (size, 3, 64, 64)."""
    names = list(BACKGROUNDS)
    pictures = [
        random_picture(sprites[rng.integers(len(sprites))], names[rng.integers(len(names))], rng) for _ in range(size)
    ]
    return to_tensor(np.stack(pictures))


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (n, 64, 64, 3) -> float32 in [-1, 1], (n, 3, 64, 64)."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def edges(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences between neighbouring pixels, along x and along y."""
    return images[..., 1:] - images[..., :-1], images[..., 1:, :] - images[..., :-1, :]


def loss_of(vae: AutoencoderKL, images: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Training loss (pixels, edges, a small KL term) and the mean absolute error of pixels in [-1, 1]."""
    posterior = vae.encode(images).latent_dist
    decoded = vae.decode(posterior.sample()).sample
    pixel = (decoded - images).abs().mean()
    edge = sum((a - b).abs().mean() for a, b in zip(edges(decoded), edges(images), strict=True))
    return pixel + 0.5 * edge + 1e-5 * posterior.kl().mean() / 1024, pixel.item()


def train(out: Path, minutes: float, batch: int, threads: int, frozen_encoder: bool) -> None:
    """Train `out/vae` for another `minutes`; its scaling factor gives latents unit variance."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    sprites = load_sprites(out / "npm")
    vae = AutoencoderKL.from_pretrained(out / "vae") if (out / "vae").exists() else AutoencoderKL(**CONFIG)
    vae.to(memory_format=torch.channels_last).train()
    for module in (vae.encoder, vae.quant_conv):
        module.requires_grad_(not frozen_encoder)
    learning = [p for p in vae.parameters() if p.requires_grad]
    print(f"{sum(p.numel() for p in learning):,} parameters", flush=True)
    optimizer = torch.optim.AdamW(learning, lr=2e-3, weight_decay=1e-4, betas=(0.9, 0.99))
    start, step, done = time.monotonic(), 0, 0.0
    while done < 1:
        done = (time.monotonic() - start) / (60 * minutes)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * max(0.01, min(1.0, (1 - done) / 0.5))
        images = picture_batch(sprites, batch, rng).to(memory_format=torch.channels_last)
        loss, error = loss_of(vae, images)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"{step} steps, {time.monotonic() - start:.0f} s, mean absolute error {error:.4f}", flush=True)
    if frozen_encoder:
        vae.save_pretrained(out / "vae")
        return
    with torch.no_grad():
        latents = vae.eval().encode(picture_batch(sprites, 512, rng)).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    vae.save_pretrained(out / "vae")
    print(f"scaling factor {vae.config.scaling_factor}, channel means {latents.mean((0, 2, 3)).tolist()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=13)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frozen-encoder", action="store_true")
    args = parser.parse_args()
    train(args.out, args.minutes, args.batch, args.threads, args.frozen_encoder)
