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
from ecad.schedules.fields import Bits, check_number, checked_fields
from ecad.schedules.output_products import Products, same_products
from ecad.schedules.output_weights import OutputWeights
from ecad.sites.names import Sites, check_sites
from ecad.utils.files import write_atomic
from ecad.utils.published import how_to_fetch

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

# Keys of a file whose absence means the same as None.
_OUTPUTS = ("output_products", "output_weights")


@dataclass(frozen=True, eq=False, repr=False)
class CacheSchedule:
    """An immutable table of bits: True recomputes a component at a step, False reuses its last output.

    Two schedules are equal, and have the same hash, if bits, sites, name and everything else in their files are equal.

    Args:
        recompute: bool (steps, sites); copied, then read-only.
        sites: the (block, component) pair of each column, in gene order; a block's components stand together.
        name: one line of text.
        forecast: extrapolate outputs instead of reusing them unchanged: linearly by one step, from the last two that
            were computed. In a step that recomputes nothing, the denoiser does not run, and its output is extrapolated.
        output_products: float (steps, steps), mean inner products of the denoiser's outputs after guidance at any two
            steps of uncached images, in any unit. If given, the denoiser's output is extrapolated with the coefficients
            that fit them best (least squares) instead of linearly.
        output_weights: 1 to 3 numbers per step, fitted to this schedule: coefficients of the newest computed output of
            the denoiser, of its change since the one before, and of the change before that. If given, their sum is used
            as the denoiser's output in every step, and `output_products` is not used.
        config: how images are made with it: height and width in pixels, guidance_scale, weights. JSON values.
        metrics: what was measured: total_macs, latency in milliseconds per image. JSON values.
        attributes: how the schedule was made. JSON values.
        custom_compute: {(step, block, "custom_compute_attn"): {"name": ..., "kwargs": {...}}}: entries that published
            files have beside a block's bits; the steps count on into `spare`.
        spare: bool (rows, sites), rows of a file beyond its number of steps.
        skeleton: key order and unknown keys of a file, so that the file is written as it was read.

    Raises:
        ScheduleError: a shape, type or name is wrong, or two fields disagree.

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
        for key, value in checked_fields(self).items():
            object.__setattr__(self, key, value)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CacheSchedule:
        """Read a schedule file.

        Raises:
            ScheduleError: the file cannot be read or is malformed. The message names the step, block and component.
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
            raise ScheduleError(f"cannot read this schedule: {reason}{missing}", file=path) from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the schedule file atomically; missing folders are created.

        Raises:
            EcadError: the file cannot be written.
        """
        write_atomic(path, json.dumps(self.to_json(), indent=4, allow_nan=False) + "\n")

    @classmethod
    def from_pretrained(cls, place: str | os.PathLike[str], revision: str | None = None) -> CacheSchedule:
        """Read a shared schedule from a folder that `save_pretrained` wrote, or from the Hugging Face Hub.

        Args:
            place: a folder, or "organisation/name" of a hub repository.
            revision: branch, tag or commit on the hub.

        Raises:
            EcadError: the schedule does not exist, or the hub cannot be reached.
            ScheduleError: the schedule is malformed.
        """
        from ecad.schedules import sharing

        return cls.load(sharing.pull(place, revision))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder to share, with the schedule file and its card.

        Raises:
            EcadError: the folder cannot be written.
        """
        from ecad.schedules import sharing

        sharing.save_folder(self, folder)

    def push_to_hub(self, repo: str, private: bool = False) -> str:
        """Upload the schedule and its card to the Hugging Face Hub.

        Args:
            repo: "organisation/name"; created if missing.
            private: whether a new repository is private.

        Returns:
            the URL of the upload.

        Raises:
            EcadError: the hub refuses the upload or cannot be reached.
        """
        from ecad.schedules import sharing

        return sharing.push(self, repo, private)

    @classmethod
    def from_json(cls, document: object) -> CacheSchedule:
        """Make the schedule of a parsed schedule file. Raises ScheduleError if the document is malformed."""
        return cls(**file_format.read(document))

    def to_json(self) -> dict[str, Any]:
        """The JSON value of the schedule file, for `json.dumps`."""
        return file_format.write(self)

    @classmethod
    def from_bits(cls, bits: npt.ArrayLike, sites: Iterable[Sequence[str]], **fields: Any) -> CacheSchedule:
        """Make a schedule from one row of genes.

        Args:
            bits: bool (steps * sites,), step-major.
            sites: the columns.
            **fields: further fields of the schedule.

        >>> CacheSchedule.from_bits([True, False, True], [("0", "ff")]).num_steps
        3
        """
        checked = check_sites(sites)
        genes = np.asarray(bits)
        if genes.ndim != 1 or genes.size % len(checked):
            expected = f"one row of genes, a multiple of {len(checked)} sites"
            raise ScheduleError("genes do not fit the sites", expected=expected, found=f"shape {genes.shape}")
        return cls(genes.reshape(-1, len(checked)), checked, **fields)

    @classmethod
    def for_model(cls, model: object, steps: int) -> CacheSchedule:
        """Make a schedule for any model that recomputes all of its sites at every step.

        Args:
            model: a diffusers pipeline with one denoiser, or a denoiser; on any device, "meta" included.
            steps: number of denoising steps, at least 1.

        Raises:
            EcadError: there is no denoiser, more than one, or one without known components.
            ScheduleError: the number of steps is out of range.

        >>> from diffusers import SanaTransformer2DModel
        >>> CacheSchedule.for_model(SanaTransformer2DModel(num_layers=2, num_attention_heads=1), steps=20)
        CacheSchedule('SanaTransformer2DModel_none', 20 steps × 6 sites, 100.0% recomputed)
        """
        # Imported here: schedules can be used without PyTorch.
        from ecad.sites.discovery import discover, one_denoiser

        check_number("steps", steps, 1)
        denoiser = one_denoiser(model)
        sites = tuple((site.block, site.component) for site in discover(denoiser))
        name = type(denoiser).__name__
        bits, attributes = np.ones((steps, len(sites)), dtype=bool), {"heuristic": "none"}
        return cls(bits, sites, f"{name}_none", config={"transformer": name}, attributes=attributes)

    def to_bits(self) -> Bits:
        """The genes, bool (steps * sites,), step-major; a copy."""
        return self.recompute.flatten()

    def replace(self, **changes: Any) -> CacheSchedule:
        """Make a copy with other fields.

        What no longer holds is dropped, unless it is given, too: `output_weights` if bits, sites, forecast or custom
        computations change; metrics and attributes if these or the output weights or products change; the metrics if
        the config (image size, weights) changes. So `replace` transfers a schedule to another variant of its model.

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
        """Transfer the schedule to another number of denoising steps, or to a model of another depth.

        Each site keeps its density of recomputations over relative denoising time: their number scales with the number
        of steps, rounded, and is at least one; the first step computes. New blocks take the bits of the old block with
        the same components at the nearest relative depth. The new name has the number of steps, and the attributes
        have the origin. The metrics, which were measured with the old schedule, are dropped. A TGATE gate keeps its
        relative time.

        Args:
            steps: number of denoising steps, at least 1; None keeps it.
            sites: (block, component) pairs of the other model; None keeps them.

        Returns:
            the same object if nothing changes.

        Raises:
            ScheduleError: `steps` is out of range, a new block has components that no old block has, or an entry of
                `custom_compute` is not TGATE's and cannot be transferred.

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
        """Number of denoising steps."""
        return len(self.recompute)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Block keys in gene order."""
        return tuple(dict.fromkeys(block for block, _ in self.sites))

    @property
    def components(self) -> tuple[str, ...]:
        """Component names without repetition, in gene order."""
        return tuple(dict.fromkeys(component for _, component in self.sites))

    @property
    def share_recomputed(self) -> float:
        """The fraction of bits that recompute, 0 to 1."""
        return float(self.recompute.mean())

    def show(self, width: int = 80, by_component: bool = False) -> str:
        """Draw a heat map as plain text: steps across, blocks down. Denser glyphs recompute more components.

        Args:
            width: columns of the terminal.
            by_component: draw one map per component instead of one for all components.
        """
        from ecad.schedules.heat_map import heat_map

        return heat_map(self, width, by_component).plain

    def plot(self, component: str | None = None) -> Figure:
        """Draw a heat map as a plotly figure, for a notebook.

        Args:
            component: show only this component.

        Raises:
            EcadError: the extra `report` is not installed.
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
            # A missing key and an empty value mean the same.
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
        forecast = ", others extrapolated" if self.forecast else ""
        return f"CacheSchedule({self.name!r}, {table}, {self.share_recomputed:.1%} recomputed{forecast})"

    def __reduce__(self) -> tuple[object, ...]:
        # Read-only mappings cannot be copied or sent to another process; the JSON value can.
        return CacheSchedule.from_json, (self.to_json(),)
