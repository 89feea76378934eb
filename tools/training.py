"""A resumable training run: optimizers, averaged weights, checkpoints, and a loop with a time limit.

Matrices inside the blocks are trained with Muon (Jordan et al., 2024), all other parameters with AdamW.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

Loss = Callable[[int, np.random.Generator], Tensor]


def start_at_zero(model: nn.Module, temporal: Iterable[nn.Module] = ()) -> None:
    """Let gates, modulation and output of a PixArt-like transformer start at zero (adaLN-zero, arXiv 2212.09748).

    Args:
        model: with `transformer_blocks` that attend to the text.
        temporal: its blocks that do not.
    """
    for module in (model.adaln_single.linear, model.proj_out):
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
    for part in (model, *model.transformer_blocks, *temporal):
        nn.init.normal_(part.scale_shift_table, std=0.02)
    for block in model.transformer_blocks:
        nn.init.zeros_(block.attn2.to_out[0].weight)


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalized by Newton-Schulz, like torch.optim.Muon, with equal shapes in one batch."""

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


def orthogonalised(matrices: Tensor) -> Tensor:
    """Five Newton-Schulz steps (Jordan et al., 2024) on (n, rows, columns) with rows <= columns."""
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def new_optimizers(models: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for all other parameters; each group stores its full rate."""
    matrices = [p for name, p in models.named_parameters() if is_block_matrix(name, p)]
    chosen = {id(p) for p in matrices}
    rest = [p for p in models.parameters() if id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=rate * 10, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, foreach=True),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
    return optimizers


def is_block_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a matrix of a block, without modulation: its gates start at zero and must open slowly."""
    return "transformer_blocks" in name and ".norm" not in name and parameter.ndim == 2 and name.endswith(".weight")


def rate_factor(step: int, done: float) -> float:
    """Warm up for 200 steps, hold, fall to zero over the last third of the time."""
    return min(1.0, (step + 1) / 200) * min(1.0, (1 - done) * 3)


class Training:
    """The state of a training run: models, their averages, optimizers and progress.

    Args:
        folder: folder of the checkpoint.
        models: the trained models.
        loss: (batch size, random numbers) -> loss.
        export: writes the models; called while they hold the averages.
        rate: learning rate of AdamW; that of Muon is ten times as high.
    """

    def __init__(
        self, folder: Path, models: nn.ModuleDict, loss: Loss, export: Callable[[], None], rate: float
    ) -> None:
        self.folder, self.models, self.loss, self.export = folder, models, loss, export
        self.optimizers = new_optimizers(models, rate)
        self.average = {k: v.clone() for k, v in models.state_dict().items()}
        self.step, self.seconds = 0, 0.0

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
        """Write the averaged models and the checkpoint."""
        current = {k: v.clone() for k, v in self.models.state_dict().items()}
        self.models.load_state_dict(self.average)
        self.export()
        self.models.load_state_dict(current)
        tensors = {f"model.{k}": v for k, v in current.items()} | {f"average.{k}": v for k, v in self.average.items()}
        for i, optimizer in enumerate(self.optimizers):
            for j, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{i}.{j}.{k}": torch.as_tensor(v) for k, v in state.items()}
        save_file(
            {k: v.contiguous().clone() for k, v in tensors.items()},
            self.folder / "new.safetensors",
            metadata={"progress": json.dumps([self.step, self.seconds])},
        )
        os.replace(self.folder / "new.safetensors", self.folder / "checkpoint.safetensors")

    def resume(self) -> None:
        """Resume from the last checkpoint, if there is one."""
        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            return
        with safe_open(path, "pt") as file:
            self.step, self.seconds = json.loads(file.metadata()["progress"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        self.models.load_state_dict({k: tensors[f"model.{k}"] for k in self.average})
        self.average = {k: tensors[f"average.{k}"] for k in self.average}
        for i, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"optimizer.{i}."):
                    _, _, j, name = key.split(".")
                    state.setdefault(int(j), {})[name] = value
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
        print(f"resumed at step {self.step}", flush=True)

    def run(self, minutes: float, batch: int) -> None:
        """Train for `minutes` in total over all runs, saving every few minutes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.resume()
        print(f"{sum(p.numel() for p in self.models.parameters()):,} parameters", flush=True)
        rng = np.random.default_rng([2, self.step])
        begun, saved, losses = time.monotonic() - self.seconds, time.monotonic(), []
        while self.seconds < 60 * minutes:
            losses.append(self.update(batch, rng, self.seconds / (60 * minutes)))
            self.seconds = time.monotonic() - begun
            if self.step % 100 == 0:
                mean, losses = np.mean(losses), []
                print(f"{self.step} steps, {self.seconds:.0f} s, loss {mean:.4f}", flush=True)
            if time.monotonic() - saved > 300:
                self.save()
                saved = time.monotonic()
        self.save()
