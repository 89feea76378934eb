"""What a schedule means, slowly and obviously: a dictionary of outputs. Knows nothing of the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree
from zoo import Specimen

from ecad.schedules import CacheSchedule

Site = tuple[str, str]
_DENOISER = ("", "")


@dataclass
class Interpretation:
    """The latents, and how often components had to run, were answered from memory, or did not matter."""

    latents: torch.Tensor
    computed: int
    reused: int
    skipped: int


def interpret(specimen: Specimen, schedules: Mapping[str, CacheSchedule]) -> Interpretation:
    """Run a specimen once under schedules, one for each of its denoisers."""
    interpreter = _Interpreter(specimen)
    replaced = []
    for name, schedule in schedules.items():
        denoiser = getattr(specimen.pipe, name)
        denoiser.forward = interpreter.counting(name, schedule, denoiser.forward)
        replaced.append(denoiser)
        for site, module in specimen.components(name).items():
            module.forward = interpreter.replaying(name, schedule, site, module.forward)
            replaced.append(module)
    try:
        latents = specimen.run()
    finally:
        for module in replaced:
            del module.forward
    return Interpretation(latents, *interpreter.counts())


class _Interpreter:
    """Stands in for the forward of every component while a specimen runs once."""

    def __init__(self, specimen: Specimen) -> None:
        self.passes, self.begin = specimen.passes, specimen.begin
        self.forwards = 0
        # (denoiser, pass, site) -> the forward that computed the output, the output, and what a reuse gives
        self.kept: dict[tuple[str, int, Site], tuple[int, Any, Any]] = {}
        self.structures: dict[tuple[str, int, Site], Any] = {}
        # (forward, denoiser, site) -> the forward that computed what was returned
        self.returned: dict[tuple[int, str, Site], int] = {}

    def counting(self, name: str, schedule: CacheSchedule, forward: Any) -> Any:
        """Under a forecast the denoiser runs if one of its sites does, and is else forecast itself."""

        def count(*args: Any, **kwargs: Any) -> Any:
            now = self.forwards
            self.forwards += 1
            row, which = divmod(now, self.passes)
            key = name, which, _DENOISER
            if not schedule.forecast:
                return forward(*args, **kwargs)
            if schedule.recompute[self.begin + row].any() or key not in self.kept:
                result = forward(*args, **kwargs)
                self._keep(key, now, pytree.tree_leaves(result), draws=True)
                self.structures[key] = pytree.tree_flatten(result)[1]
                return result
            return pytree.tree_unflatten(self.kept[key][2], self.structures[key])

        return count

    def _keep(self, key: tuple[str, int, Site], now: int, output: Any, draws: bool) -> None:
        shown = output
        if draws and key in self.kept:
            before, last, _ = self.kept[key]
            shown = _point_ahead(output, last, (now - before) // self.passes)
        self.kept[key] = now, output, shown

    def replaying(self, name: str, schedule: CacheSchedule, site: Site, forward: Any) -> Any:
        def replay(*args: Any, **kwargs: Any) -> Any:
            now = self.forwards - 1
            row, which = divmod(now, self.passes)
            key = name, which, site
            if schedule.recompute[self.begin + row, schedule.sites.index(site)] or key not in self.kept:
                self._keep(key, now, forward(*args, **kwargs), schedule.forecast)
            when, output, shown = self.kept[key]
            output = output if when == now else shown
            self.returned[now, name, site] = when
            return tuple(part.clone() for part in output) if isinstance(output, tuple) else output.clone()

        return replay

    def counts(self) -> tuple[int, int, int]:
        matter = {call: when for call, when in self.returned.items() if self._matters(*call)}
        computed = {(when, name, site) for (_, name, site), when in matter.items()}
        reused = [call for call, when in matter.items() if when != call[0]]
        return len(computed), len(reused), len(self.returned) - len(computed) - len(reused)

    def _matters(self, now: int, name: str, site: Site) -> bool:
        """An output that `proj_out` alone looks at matters when `proj_out` is computed; every other one does."""
        block = site[0]
        calls = {
            suffix: call
            for suffix in ("attn", "proj_mlp", "gated_proj_mlp", "proj_out")
            for prefix in ("", "single_")
            if (call := (now, name, (block, prefix + suffix))) in self.returned
        }
        is_parallel = "proj_out" in calls and len(calls) == 3
        if is_parallel and (now, name, site) in (calls["attn"], calls.get("proj_mlp")):
            return self.returned[calls["proj_out"]] == now
        return True


def _point_ahead(now: Any, before: Any, rows: int) -> Any:
    """One row further on the line."""
    if isinstance(now, tuple | list):
        return tuple(_point_ahead(*parts, rows) for parts in zip(now, before, strict=True))
    return torch.add(now, now - before, alpha=1 / rows)
