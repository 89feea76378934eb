"""A pipeline under test: its bare generations, random schedules, and the interpreter's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from interpreter import Interpretation, NotTheSame, interpret
from recording import Recording, record
from subjects import Subject
from torch import nn

import ecad
from ecad.sites.discovery import denoisers, discover


class Wrong(Exception):
    """A check failed."""


class NotTried(Exception):
    """The mode does not apply to this pipeline."""


class Case:
    """A subject with its denoisers.

    Attributes:
        subject: the pipeline and its inputs.
        modules: name -> denoiser.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject, self.pipe = subject, subject.pipe
        self.modules: dict[str, nn.Module] = denoisers(subject.pipe)
        self.rows: int | None = None
        self.seen: dict[str, Any] = {}
        self._plain: Recording | None = None

    def plain(self) -> Recording:
        """The bare generation with the default arguments, cached."""
        if self._plain is None:
            self._plain = self.record()
        self.seen = self._plain.describe()
        return self._plain

    def settle(self) -> None:
        """Find the number of rows that the runtime accepts, once for all modes."""
        with suppress(Exception):  # each mode reports its own error
            self.schedules(self.plain(), 0)

    def record(self, seed: int = 0, **changes: Any) -> Recording:
        """A bare generation."""
        try:
            recording = record(lambda: self.subject.run(seed, **changes), self.modules)
        except Exception as error:
            raise NotTried(f"the bare pipeline fails: {one_line(error)}") from error
        if not recording.forwards:
            raise NotTried("the pipeline does not call its transformer")
        if not any(forward.row is not None for forward in recording.forwards):
            raise NotTried("the pipeline steps no scheduler of diffusers'")
        if not recording.output:
            raise NotTried("the pipeline returns no tensors")
        self.seen = recording.describe()
        return recording

    def schedules(self, recording: Recording, seed: int, forecast: bool = False) -> dict[str, ecad.CacheSchedule]:
        """Random schedules, one per denoiser that runs."""
        used = {forward.denoiser for forward in recording.forwards}
        rows = self.rows or self._rows_that_fit(recording, used)
        drawn = np.random.default_rng(seed)
        skips = drawn.random(rows) < 0.5
        made = {}
        for name in [name for name in self.modules if name in used]:
            sites = tuple((site.block, site.component) for site in discover(self.modules[name]))
            bits = drawn.random((rows, len(sites))) < (0.5, 0.3, 0.7)[seed % 3]
            if forecast:
                bits[skips] = False
                _draw_parallel_sites_together(bits, sites)
            made[name] = ecad.CacheSchedule(bits, sites, name=f"random {seed}", forecast=forecast)
        return made

    def _rows_that_fit(self, recording: Recording, used: set[str]) -> int:
        """The number of timesteps, or of rows that ran: whatever the runtime accepts."""
        last = max(forward.row for forward in recording.forwards if forward.row is not None)
        refusal: Exception | None = None
        for rows in dict.fromkeys((*recording.rows, last + 1)):
            ones = {
                name: ecad.CacheSchedule.for_model(module, steps=rows)
                for name, module in self.modules.items()
                if name in used
            }
            try:
                with self.cached(ones):
                    got = self.subject.run()
            except ecad.EcadError as error:
                refusal = refusal or error
                continue
            if recording.forwards and not same(got, self.subject.run()):
                raise Wrong("with all ones the output is not that of the bare pipeline")
            self.rows = rows
            return rows
        assert refusal is not None
        raise refusal

    def cached(self, schedules: Mapping[str, ecad.CacheSchedule]) -> Any:
        """The pipeline with schedules, in a `with` block."""
        return ecad.cached(self.pipe, dict(schedules) if len(self.modules) > 1 else next(iter(schedules.values())))

    def interpret(
        self, recording: Recording, schedules: Mapping[str, ecad.CacheSchedule], seed: int = 0, **changes: Any
    ) -> Interpretation:
        """The interpreter's output for the schedules."""
        try:
            found = interpret(lambda: self.subject.run(seed, **changes), self.modules, schedules, recording)
        except NotTheSame as error:
            raise NotTried(f"what the pipeline does depends on its values: {error}") from error
        if not all(tensor.double().isfinite().all() for tensor in found.output):
            raise NotTried("the pipeline's output is not finite under a random schedule")
        return found


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    """Whether two outputs are bit-identical."""
    return len(one) == len(other) and all(map(torch.equal, one, other))


def one_line(error: BaseException | None) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return (text if isinstance(error, ecad.EcadError) else f"{type(error).__name__}: {text}")[:240]


def _draw_parallel_sites_together(bits: np.ndarray, sites: tuple[tuple[str, str], ...]) -> None:
    """A block's outputs that only `proj_out` reads run with it, so that extrapolations use computed outputs."""
    places = {site: place for place, site in enumerate(sites)}
    for (block, component), place in places.items():
        prefix = component.removesuffix("proj_out")
        others = [places.get((block, prefix + name)) for name in ("attn", "proj_mlp", "gated_proj_mlp")]
        if component.endswith("proj_out") and others[0] is not None and any(o is not None for o in others[1:]):
            for other in others:
                if other is not None:
                    bits[:, other] = bits[:, place]
