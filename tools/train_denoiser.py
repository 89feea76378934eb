"""Train the built-in model's text encoder and PixArt transformer together, on latents that are computed once.

python tools/train_denoiser.py build --minutes 240      # resumes from build/denoiser if that was interrupted

Prediction is of the velocity (Salimans and Ho, arXiv 2202.00512): with noise prediction a model this small learns no
text at all, since what the text decides is decided at high noise, where that loss is blind.
Matrices inside the blocks learn with Muon (Jordan et al., 2024), the rest with AdamW.
"""

from __future__ import annotations

import argparse
import json
import os
import time
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
    """PixArt's sampler, told that the model predicts velocities."""
    return DPMSolverMultistepScheduler(prediction_type="v_prediction")


def new_transformer() -> PixArtTransformer2DModel:
    """The transformer with gates, modulation and output starting at zero (adaLN-zero, arXiv 2212.09748)."""
    model = PixArtTransformer2DModel(**TRANSFORMER)
    for module in (model.adaln_single.linear, model.proj_out):
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
    nn.init.normal_(model.scale_shift_table, std=0.02)
    for block in model.transformer_blocks:
        with torch.no_grad():
            block.scale_shift_table.normal_(std=0.02)
        nn.init.zeros_(block.attn2.to_out[0].weight)
    return model


@dataclass
class Latents:
    """Training latents by combination: values float16 (combinations, variants, 4, 16, 16) and their captions."""

    values: torch.Tensor
    parts: list[tuple[str, str, str]]


def make_latents(folder: Path, sprites: list[Sprite]) -> Latents:
    """Encode `VARIANTS` random pictures of every combination that is not held out; cached in `folder`."""
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
    """Token ids of captions, with parts left out now and then and the whole of it for guidance."""

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


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz, as torch.optim.Muon, with equal shapes done in one batch."""

    def __init__(
        self, params: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for p in group["params"]:
                by_shape.setdefault((min(p.shape), max(p.shape)), []).append(p)
            for params in by_shape.values():
                updates = []
                for p in params:
                    buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    update = p.grad.lerp(buffer, group["momentum"])
                    updates.append(update if p.shape[0] <= p.shape[1] else update.T)
                for p, update in zip(params, orthogonalised(torch.stack(updates)), strict=True):
                    scale = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update if p.shape[0] <= p.shape[1] else update.T, alpha=-group["lr"] * scale)


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """Five Newton-Schulz steps (Jordan et al., 2024) on (n, rows, columns) with rows <= columns."""
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def new_optimizers(transformer: nn.Module, text_encoder: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for everything else; every group remembers its own full rate."""
    matrices = [p for n, p in transformer.named_parameters() if "transformer_blocks" in n and n.endswith(".weight")]
    chosen = {id(p) for p in matrices}
    rest = [p for p in [*transformer.parameters(), *text_encoder.parameters()] if id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=rate * 10, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, foreach=True),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
    return optimizers


def rate_factor(step: int, done: float) -> float:
    """Warm up for 200 steps, hold, fall to zero over the last third of the time."""
    return min(1.0, (step + 1) / 200) * min(1.0, (1 - done) * 3)


class Trainer:
    """Everything that a checkpoint holds: the models, their averages, the optimizers, how far it got."""

    def __init__(self, folder: Path, rate: float) -> None:
        torch.manual_seed(0)
        self.folder = folder
        self.latents = make_latents(folder, load_sprites(folder / "npm"))
        self.captions = Captions(folder, self.latents.parts)
        self.text_encoder = new_text_encoder(self.captions.tokenizer)
        self.transformer = new_transformer()
        self.models = nn.ModuleDict({"transformer": self.transformer, "text_encoder": self.text_encoder})
        self.optimizers = new_optimizers(self.transformer, self.text_encoder, rate)
        self.average = {k: v.clone() for k, v in self.models.state_dict().items()}
        self.alphas = new_scheduler().alphas_cumprod
        self.step, self.seconds = 0, 0.0

    def loss(self, size: int, rng: np.random.Generator) -> torch.Tensor:
        """Mean squared error of the predicted velocity over a random batch."""
        index = rng.integers(len(self.latents.parts), size=size)
        clean = self.latents.values[index, rng.integers(VARIANTS, size=size)].float()
        ids, mask = self.captions.draw(index, rng)
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        t = torch.from_numpy(rng.integers(1000, size=size))
        alpha = self.alphas[t].sqrt().view(-1, 1, 1, 1)
        sigma = (1 - self.alphas[t]).sqrt().view(-1, 1, 1, 1)
        text = self.text_encoder(ids, attention_mask=mask)[0]
        predicted = self.transformer(alpha * clean + sigma * noise, text, t, encoder_attention_mask=mask).sample
        return F.mse_loss(predicted, alpha * noise - sigma * clean)

    def update(self, size: int, rng: np.random.Generator, done: float) -> float:
        """One optimizer step; returns the loss."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * rate_factor(self.step, done)
        loss = self.loss(size, rng)
        self.models.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.models.parameters(), 1.0, foreach=True)
        for optimizer in self.optimizers:
            optimizer.step()
        decay = min(0.9995, (1 + self.step) / (20 + self.step))
        state = self.models.state_dict()
        torch._foreach_lerp_([self.average[k] for k in state], list(state.values()), 1 - decay)
        self.step += 1
        return loss.item()

    def save(self) -> None:
        """Write the averaged models for use, and all there is for going on."""
        out = self.folder / "denoiser"
        current = {k: v.clone() for k, v in self.models.state_dict().items()}
        self.models.load_state_dict(self.average)
        self.transformer.save_pretrained(out / "transformer")
        self.text_encoder.save_pretrained(out / "text_encoder")
        self.captions.tokenizer.save_pretrained(out / "tokenizer")
        self.models.load_state_dict(current)
        tensors = {f"model.{k}": v for k, v in current.items()} | {f"average.{k}": v for k, v in self.average.items()}
        for i, optimizer in enumerate(self.optimizers):
            for j, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{i}.{j}.{k}": torch.as_tensor(v) for k, v in state.items()}
        save_file(
            {k: v.contiguous().clone() for k, v in tensors.items()},
            out / "new.safetensors",
            metadata={"progress": json.dumps([self.step, self.seconds])},
        )
        os.replace(out / "new.safetensors", out / "checkpoint.safetensors")

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        path = self.folder / "denoiser" / "checkpoint.safetensors"
        if not path.exists():
            return
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            self.step, self.seconds = json.loads(file.metadata()["progress"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        self.models.load_state_dict({k: tensors[f"model.{k}"] for k in self.average})
        self.average = {k: tensors[f"average.{k}"] for k in self.average}
        for i, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"optimizer.{i}."):
                    _, _, j, name = key.split(".")
                    state.setdefault(int(j), {})[name] = value
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
        print(f"resumed at step {self.step}", flush=True)


def train(folder: Path, minutes: float, batch: int, rate: float, threads: int) -> None:
    """Train until `minutes` have been spent in all, saving every few minutes."""
    torch.set_num_threads(threads)
    trainer = Trainer(folder, rate)
    trainer.resume()
    print(f"{sum(p.numel() for p in trainer.models.parameters()):,} parameters", flush=True)
    rng = np.random.default_rng([2, trainer.step])
    begun, saved, losses = time.monotonic() - trainer.seconds, time.monotonic(), []
    while trainer.seconds < 60 * minutes:
        losses.append(trainer.update(batch, rng, trainer.seconds / (60 * minutes)))
        trainer.seconds = time.monotonic() - begun
        if trainer.step % 100 == 0:
            mean, losses = np.mean(losses), []
            print(f"{trainer.step} steps, {trainer.seconds:.0f} s, loss {mean:.4f}", flush=True)
        if time.monotonic() - saved > 300:
            trainer.save()
            saved = time.monotonic()
    trainer.save()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=240)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    train(args.folder, args.minutes, args.batch, args.rate, args.threads)
