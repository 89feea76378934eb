"""Train the judge, a small CLIPModel, to match images with their captions.

python tools/train_judge.py build --minutes 40

It is trained on the training combinations only, with random size, position, orientation, blur and noise. Held-out
combinations are known to it only through their parts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms.v2.functional import gaussian_blur
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerBase

from emoji_data import BACKGROUNDS, SIZE, STYLES, Sprite, caption, held_out, load_sprites, random_picture
from text import train_tokenizer
from train_vae import to_tensor

MEAN = STD = (0.5, 0.5, 0.5)
VARIANTS = 6
Pool = dict[tuple[str, str, str], list[np.ndarray]]


def new_judge(tokenizer: PreTrainedTokenizerBase) -> CLIPModel:
    """A CLIPModel of 1.6 million parameters: 64x64 pixels in patches of 8, captions of at most 77 tokens."""
    vision = dict(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=8,
        projection_dim=96,
    )
    text = dict(
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=len(tokenizer),
        max_position_embeddings=77,
        projection_dim=96,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=1,
    )
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=96))


def draw(sprites: list[Sprite], pool: Pool, size: int, rng: np.random.Generator) -> tuple[torch.Tensor, list[str]]:
    """Distinct combinations in pairs with the same name, so that the model also learns style and background."""
    backgrounds, chosen = list(BACKGROUNDS), []
    for start in rng.permutation(len(sprites) // len(STYLES))[: size // 2] * len(STYLES):
        pairs = [(s, b) for s in sprites[start : start + len(STYLES)] for b in backgrounds]
        allowed = [(s, b) for s, b in pairs if not held_out(s.name, s.style, b)]
        chosen += [allowed[i] for i in rng.permutation(len(allowed))[:2]]
    pictures = np.stack([pooled_picture(s, b, pool, rng) for s, b in chosen])
    return degrade(to_tensor(pictures), rng), [caption(s.name, s.style, b) for s, b in chosen]


def pooled_picture(sprite: Sprite, background: str, pool: Pool, rng: np.random.Generator) -> np.ndarray:
    """One of a few random images of a combination; they are cached, since drawing takes as long as learning."""
    pictures = pool.setdefault((sprite.name, sprite.style, background), [])
    if len(pictures) < VARIANTS:
        pictures.append(random_picture(sprite, background, rng))
    return pictures[rng.integers(len(pictures))]


def degrade(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Random blur for the whole batch and random noise for each image."""
    blurred = gaussian_blur(images, [5, 5], [float(rng.uniform(0.1, 1.0))])
    amount = torch.from_numpy(rng.uniform(0, 0.08, (len(images), 1, 1, 1))).float()
    return blurred + amount * torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))


def train(folder: Path, minutes: float, batch: int, threads: int) -> None:
    """Train `folder/judge` for another `minutes`; written with its tokenizer and image processor."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(3)
    sprites = load_sprites(folder / "npm")
    tokenizer = train_tokenizer(folder / "npm")
    judge = CLIPModel.from_pretrained(folder / "judge") if (folder / "judge").exists() else new_judge(tokenizer)
    judge.train()
    pool: Pool = {}
    print(f"{sum(p.numel() for p in judge.parameters()):,} parameters", flush=True)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05)
    start, step, done = time.monotonic(), 0, 0.0
    while done < 1:
        done = (time.monotonic() - start) / (60 * minutes)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 200) * max(0.0, min(1.0, (1 - done) * 2))
        images, captions = draw(sprites, pool, batch, rng)
        out = judge(pixel_values=images, **tokenizer(captions, padding=True, return_tensors="pt"))
        target = torch.arange(len(images))
        loss = (F.cross_entropy(out.logits_per_image, target) + F.cross_entropy(out.logits_per_text, target)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            right = (out.logits_per_image.argmax(1) == target).float().mean()
            spent = time.monotonic() - start
            print(f"{step} steps, {spent:.0f} s, loss {loss.item():.4f}, {right:.3f} right", flush=True)
    judge.save_pretrained(folder / "judge")
    tokenizer.save_pretrained(folder / "judge")
    size = {"height": SIZE, "width": SIZE}
    CLIPImageProcessorPil(size=size, crop_size=size, image_mean=MEAN, image_std=STD).save_pretrained(folder / "judge")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    train(args.folder, args.minutes, args.batch, args.threads)
