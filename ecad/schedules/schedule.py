"""CacheSchedule: at which denoising step which component of which block recomputes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ecad.errors import ScheduleError
from ecad.schedules import format as file_format
from ecad.schedules import json_values as plain
from ecad.schedules.output_products import Products, checked_products, same_products
from ecad.schedules.output_weights import OutputWeights, checked_weights
from ecad.sites.names import CUSTOM_PREFIX, Sites, check_sites
from ecad.utils.files import write_atomic
from ecad.utils.published import how_to_fetch

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False, repr=False)
class CacheSchedule:
    """An immutable table of bits: True recomputes a component at a step, False reuses its last output.

    Two schedules are equal, and hash alike, if their content is: bits, sites, name and everything a file of it holds.

    Args:
        recompute: bool (steps, sites); copied, then read-only.
        sites: one (block, component) pair a column, in gene order; a block's components stand together.
        name: what people call it.
        forecast: whether what is reused goes on as it did: the point one step further on the line through the last two
            outputs that were computed, instead of the last one as it was. Where a step recomputes nothing that is so of
            the denoiser's own output, and the denoiser does not run.
        output_products: float (steps, steps), mean inner products of the denoiser's outputs, after guidance, at any two
            steps of uncached images, in any unit. Where they are known, the denoiser's output is forecast not by the
            line but by what fits these best: so much of the last output and so much of its last change.
        output_weights: one row of 1 to 3 numbers a step, fitted to this very schedule: what stands for the denoiser's
            output, also where it is computed, is so much of the newest computed output, so much of its change since the
            one before, and so much of the change before that. They go before what `output_products` say.
        config: how images are made with it: height and width in pixels, guidance_scale, weights. JSON values.
        metrics: what was measured of it: total_macs, latency in ms an image. JSON values.
        attributes: how it was made. JSON values.
        custom_compute: {(step, block, "custom_compute_attn"): {"name": ..., "kwargs": {...}}}, which a published file
            may carry beside a block's bits, kept as data; steps count on into `spare`.
        spare: bool (rows, sites), rows that a file holds past its number of steps.
        skeleton: a file's own order of keys, and keys that ecad does not know, so that it is written as it was read.

    Raises:
        ScheduleError: shapes, kinds or names that do not go together.

    >>> schedule = CacheSchedule([[True, True], [False, True]], sites=(("0", "attn1"), ("0", "ff")), name="tiny")
    >>> schedule
    CacheSchedule('tiny', 2 steps × 2 sites, 75.0% recomputed)
    >>> schedule == CacheSchedule.from_json(schedule.to_json())
    True
    """

    recompute: Bits
    sites: Sites
    name: str = "unnamed"
    forecast: bool = field(default=False, kw_only=True)
    output_products: Products | None = field(default=None, kw_only=True)
    output_weights: OutputWeights | None = field(default=None, kw_only=True)
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    custom_compute: Mapping[tuple[int, str, str], Mapping[str, Any]] = field(default_factory=dict)
    spare: Bits = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))
    skeleton: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sites = check_sites(self.sites)
        recompute = _bit_table(self.recompute, len(sites))
        if not len(recompute):
            raise ScheduleError("no steps", expected="at least one step", found="none")
        spare = _bit_table(self.spare, len(sites)) if len(self.spare) else recompute[:0]
        if not isinstance(self.name, str) or not self.name.isprintable():
            raise ScheduleError("not a name", expected="one line of text", found=plain.show(self.name))
        if not isinstance(self.forecast, bool):
            raise ScheduleError("not a choice", expected="forecast true or false", found=plain.show(self.forecast))
        _check_custom_compute(self.custom_compute, len(recompute) + len(spare), {block for block, _ in sites})
        values: dict[str, Any] = {key: plain.frozen(getattr(self, key), (key,)) for key in _OBJECTS}
        values |= {"recompute": recompute, "sites": sites, "spare": spare}
        values["custom_compute"] = plain.freeze(self.custom_compute)
        values["output_products"] = checked_products(self.output_products, len(recompute))
        values["output_weights"] = checked_weights(self.output_weights, recompute, self.forecast)
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CacheSchedule:
        """Read a schedule file.

        Raises:
            ScheduleError: it cannot be read or is malformed; says which step, block and component, what was expected
                and what was found.
        """
        try:
            return cls.from_json(file_format.parse(Path(path).read_bytes().decode("utf-8-sig")))
        except ScheduleError as error:
            error.file = os.fspath(path)
            raise
        except UnicodeDecodeError as error:
            found = f"byte 0x{error.object[error.start]:02x} at {error.start}"
            raise ScheduleError("not text", file=path, expected="JSON in UTF-8", found=found) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            missing = how_to_fetch(path) if isinstance(error, FileNotFoundError) else ""
            raise ScheduleError(f"cannot be read: {reason}{missing}", file=path) from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the schedule file, whole or not at all; raises EcadError if it cannot be written."""
        write_atomic(path, json.dumps(self.to_json(), indent=4, allow_nan=False) + "\n")

    @classmethod
    def from_pretrained(cls, place: str | os.PathLike[str], revision: str | None = None) -> CacheSchedule:
        """Read a shared schedule: from a folder that `save_pretrained` wrote, or from the Hugging Face hub.

        Args:
            place: a folder, or "organisation/name" of a hub repository.
            revision: branch, tag or commit on the hub.

        Raises:
            EcadError: there is none, or the hub cannot be reached.
            ScheduleError: it is malformed.
        """
        from ecad.schedules import sharing as hub

        return hub.pull(place, revision)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder to share: the schedule's file and its card; raises EcadError if it cannot be written."""
        from ecad.schedules import sharing as hub

        hub.save_folder(self, folder)

    def push_to_hub(self, repo: str, private: bool = False) -> str:
        """Upload the schedule and its card to the Hugging Face hub.

        Args:
            repo: "organisation/name"; made if there is none.
            private: whether a new repository is.

        Returns:
            the address of the upload.

        Raises:
            EcadError: the hub does not take it, or cannot be reached.
        """
        from ecad.schedules import sharing as hub

        return hub.push(self, repo, private)

    @classmethod
    def from_json(cls, document: object) -> CacheSchedule:
        """The schedule that a parsed schedule file holds; raises ScheduleError for anything malformed."""
        return cls(**file_format.read(document))

    def to_json(self) -> dict[str, Any]:
        """The JSON value of its file, for `json.dumps`."""
        return file_format.write(self)

    @classmethod
    def from_bits(cls, bits: npt.ArrayLike, sites: Iterable[Sequence[str]], **rest: Any) -> CacheSchedule:
        """A schedule from one row of genes.

        Args:
            bits: bool (steps * sites,), step-major.
            sites: the columns.
            **rest: further fields of the schedule.

        >>> CacheSchedule.from_bits([True, False, True], [("0", "ff")]).num_steps
        3
        """
        checked = check_sites(sites)
        genes = np.asarray(bits)
        if genes.ndim != 1 or genes.size % len(checked):
            expected = f"one row of genes, a multiple of {len(checked)} sites"
            raise ScheduleError("genes do not fit the sites", expected=expected, found=f"shape {genes.shape}")
        return cls(genes.reshape(-1, len(checked)), checked, **rest)

    @classmethod
    def for_model(cls, model: Any, steps: int) -> CacheSchedule:
        """Start a schedule for any model: every site that is found in it, recomputed at every step.

        Args:
            model: a diffusers pipeline with one denoiser, or a denoiser; on any device, "meta" included.
            steps: rows of the denoising loop, at least 1.

        Raises:
            EcadError: no denoiser, several, or one without known components.
            ScheduleError: steps out of range.

        >>> from diffusers import SanaTransformer2DModel
        >>> CacheSchedule.for_model(SanaTransformer2DModel(num_layers=2, num_attention_heads=1), steps=20)
        CacheSchedule('SanaTransformer2DModel_none', 20 steps × 6 sites, 100.0% recomputed)
        """
        # Schedules know nothing of models, but for this: people look for a schedule's beginning here.
        from ecad.schedules import heuristics
        from ecad.sites.discovery import discover, one_denoiser

        denoiser = one_denoiser(model)
        sites = tuple((site.block, site.component) for site in discover(denoiser))
        name = type(denoiser).__name__
        return heuristics.none(sites, steps).replace(name=f"{name}_none", config={"transformer": name})

    def to_bits(self) -> Bits:
        """Its genes: bool (steps * sites,), step-major; a copy."""
        return self.recompute.flatten()

    def replace(self, **changes: Any) -> CacheSchedule:
        """A copy with other fields.

        Other bits, sites, forecasts or custom computation drop the output weights, which were fitted to the old ones.
        They, or other output weights or products, drop the metrics and attributes, which described the old ones, and
        another config (image size, weights) drops the metrics, which were measured with the old one, unless those are
        given too. So this is how a schedule is taken to another variant of its model: 256 to 1024 pixels, PixArt-alpha
        to Sigma.

        >>> from ecad.schedules import heuristics, pixart_sites
        >>> small = heuristics.every_n(pixart_sites(28), 20, 3).replace(config={"height": 256}, metrics={"macs": 1})
        >>> dict(small.replace(config={"height": 1024}).metrics)
        {}
        """
        same_plan = np.array_equal(changes.get("recompute", self.recompute), self.recompute)
        same_plan &= changes.get("forecast", self.forecast) == self.forecast
        same_plan &= plain.freeze(changes.get("custom_compute", self.custom_compute)) == self.custom_compute
        same_plan &= check_sites(changes.get("sites", self.sites)) == self.sites
        if not same_plan:
            changes = {"output_weights": None} | changes
        same_outputs = same_products(changes.get("output_products", self.output_products), self.output_products)
        same_outputs &= changes.get("output_weights", self.output_weights) == self.output_weights
        if not (same_plan and same_outputs):
            changes = {"metrics": {}, "attributes": {}} | changes
        elif "config" in changes and plain.freeze(changes["config"]) != self.config:
            changes = {"metrics": {}} | changes
        return replace(self, **changes)

    def resample(self, steps: int | None = None, sites: Iterable[Sequence[str]] | None = None) -> CacheSchedule:
        """The schedule for another number of denoising steps, or for a model of another depth.

        Each site keeps its density of recomputations over relative denoising time: their number scales with the number
        of steps, rounded, and never falls to none; the first step computes. New blocks take the bits of the old block
        with the same components at the nearest relative depth. The name tells the steps, the attributes the origin;
        metrics, which were measured of another schedule, go. TGATE's gate moves with its steps.

        Args:
            steps: denoising steps, at least 1; as many as there are when None.
            sites: the other model's (block, component) pairs; this one's when None.

        Returns:
            this schedule itself, if nothing changes.

        Raises:
            ScheduleError: `steps` is no such number, a new block has components that no old one has, or an entry of
                `custom_compute` is not TGATE's and so cannot be carried over.

        >>> from ecad.schedules import heuristics, pixart_sites
        >>> found = heuristics.every_n(pixart_sites(28), 20, n=2)
        >>> found.resample(30)
        CacheSchedule('every_2_at_30_steps', 30 steps × 84 sites, 50.0% recomputed)
        >>> found.resample(sites=pixart_sites(12)).recompute.shape
        (20, 36)
        """
        from ecad.schedules.resample import resample

        return resample(self, steps, sites)

    @property
    def num_steps(self) -> int:
        """Rows of the denoising loop."""
        return len(self.recompute)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Block keys in gene order."""
        return tuple(dict.fromkeys(block for block, _ in self.sites))

    @property
    def components(self) -> tuple[str, ...]:
        """The names of all components, each once, in gene order."""
        return tuple(dict.fromkeys(component for _, component in self.sites))

    @property
    def share_recomputed(self) -> float:
        """The share of bits that say recompute, 0 to 1."""
        return float(self.recompute.mean())

    def show(self, width: int = 80, by_component: bool = False) -> str:
        """A heat map as plain text: steps across, blocks down, the darker the more is recomputed.

        Args:
            width: columns of the terminal.
            by_component: one map a component, not one of all together.
        """
        from ecad.schedules.heat_map import heat_map

        return heat_map(self, width, by_component).plain

    def plot(self, component: str | None = None) -> Any:
        """A heat map as a plotly figure, for a notebook; needs the extra `report`.

        Args:
            component: show this one alone.
        """
        from ecad.utils.extras import check_installed

        check_installed()
        from ecad.schedules.figure import schedule_figure

        return schedule_figure(self, component)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from ecad.schedules.heat_map import heat_map

        yield heat_map(self, options.max_width)

    @cached_property
    def _content(self) -> tuple[Sites, str]:
        document = self.to_json()
        for part in (document, document["cache_schedule"]):
            # Left out and empty say the same.
            for key in ("config", "metrics", "attributes", "num_single_blocks", "forecast", *_OUTPUTS):
                if not part.get(key, True):
                    del part[key]
        return self.sites, json.dumps(document, sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return self._content == other._content if isinstance(other, CacheSchedule) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._content)

    def __repr__(self) -> str:
        table = f"{self.num_steps} steps × {len(self.sites)} sites"
        forecast = ", forecast" if self.forecast else ""
        return f"CacheSchedule({self.name!r}, {table}, {self.share_recomputed:.1%} recomputed{forecast})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only mappings cannot be copied or sent to another process; the file's own form can.
        return CacheSchedule.from_json, (self.to_json(),)


_OUTPUTS = ("output_products", "output_weights")
_OBJECTS = ("config", "metrics", "attributes", "skeleton")


def _bit_table(values: npt.ArrayLike, num_sites: int) -> Bits:
    """A read-only copy, bool (steps, sites)."""
    expected = f"bool (steps, {num_sites} sites)"
    try:
        table = np.array(values)
    except ValueError:
        raise ScheduleError("not a table of bits", expected=expected, found="rows of different lengths") from None
    if table.dtype != np.bool_ or table.ndim != 2 or table.shape[1] != num_sites:
        raise ScheduleError("not a table of bits", expected=expected, found=f"{table.dtype} {table.shape}")
    table.setflags(write=False)
    return table


def _check_custom_compute(entries: Mapping[tuple[int, str, str], Any], num_rows: int, blocks: set[str]) -> None:
    for (step, block, key), entry in entries.items():
        if not 0 <= step < num_rows or block not in blocks or not key.startswith(CUSTOM_PREFIX):
            expected = f"{CUSTOM_PREFIX}* of one of {num_rows} steps and {len(blocks)} blocks"
            raise ScheduleError(
                "no place for this entry", expected=expected, found=f"step {step}, block {block}, {key}"
            )
        file_format.check_custom_compute(plain.thaw(entry), f"{step:03d}", block, key)
