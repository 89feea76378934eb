"""Front: the Pareto front of schedules of one model in one file, to pick one by speed-up or by quality."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat, JsonValue, PositiveFloat, ValidationError
from pydantic import Field as JsonField

from ecad.errors import EcadError, ScheduleError
from ecad.schedules import format as file_format
from ecad.schedules import json_values as plain
from ecad.schedules.joint import joined
from ecad.schedules.provenance import Interval
from ecad.schedules.schedule import CacheSchedule
from ecad.utils.files import write_atomic

FORMAT = "ecad front 1"
# Costs are quotients of whole numbers, and division rounds: 10 of 20 steps are exactly twice as fast.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Point:
    """One schedule of a front.

    Args:
        schedule: the schedule; of several denoisers, all of them (see `of_denoisers`).
        cost: cost of one image as a fraction of an uncached image's; above 0.
        quality: mean of the front's scorer on the validation prompts; larger is better.
        held_out: scorer -> mean and confidence interval on prompts that were not used to choose the schedule.
        each: denoiser -> its own schedule, where `schedule` does not say all of them; otherwise empty.

    Raises:
        EcadError: `schedule` has other bits or sites than those of `each`.
    """

    schedule: CacheSchedule
    cost: float
    quality: float
    held_out: Mapping[str, Interval] = field(default_factory=dict)
    each: Mapping[str, CacheSchedule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.each:
            whole = joined(self.each)
            if whole.sites != self.schedule.sites or not np.array_equal(whole.recompute, self.schedule.recompute):
                raise EcadError(f"{self.schedule.name!r} is not what the schedules of its denoisers make together")

    @classmethod
    def of_denoisers(
        cls,
        schedules: Mapping[str, CacheSchedule],
        cost: float,
        quality: float,
        held_out: Mapping[str, Interval] | None = None,
    ) -> Point:
        """The point of a pipeline with several denoisers, such as Wan 2.2.

        Args:
            schedules: denoiser -> its schedule, each with its own extrapolation; with equally many rows.
            cost, quality, held_out: of all denoisers together, as for `Point`.

        Raises:
            ScheduleError: the schedules have different numbers of rows.
        """
        return cls(joined(schedules), cost, quality, held_out or {}, dict(schedules))

    @property
    def choice(self) -> CacheSchedule | Mapping[str, CacheSchedule]:
        """What `ecad.enable_cache` takes: a schedule, or one for each denoiser."""
        return self.each or self.schedule

    @property
    def speedup(self) -> float:
        """The cost of an uncached image divided by this schedule's."""
        return 1 / self.cost


@dataclass(frozen=True)
class Front:
    """Schedules of one model, from the cheapest to the best.

    Args:
        name: one line of text.
        points: the schedules, in any order; sorted by cost, cheapest first.
        scorer: the scorer of `quality`.
        unit: unit of the costs before they were divided, "MACs" or "ns".
        provenance: how the front was made, as JSON values: method, numbers of prompts and images.

    Raises:
        EcadError: there is no schedule, there are schedules of several models, or a cost is not a positive number.

    >>> from ecad.schedules import heuristics, pixart_sites
    >>> half, third = (heuristics.every_n(pixart_sites(2), 6, n) for n in (2, 3))
    >>> front = Front("tiny", [Point(half, 1 / 2, 40.0), Point(third, 1 / 3, 30.0)])
    >>> front.pick(speedup=2).name, front.pick(quality=25).name
    ('every_2', 'every_3')
    """

    name: str
    points: Sequence[Point]
    scorer: str = "psnr"
    unit: Literal["MACs", "ns"] = "MACs"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.points, key=lambda point: (point.cost, -point.quality)))
        if not ordered:
            raise EcadError(f"front {self.name!r} has no schedules")
        for point in ordered:
            if not 0 < point.cost < math.inf or not math.isfinite(point.quality):
                found = f"{point.schedule.name!r} with cost {point.cost} and quality {point.quality}"
                raise EcadError(f"front {self.name!r}: expected finite numbers and costs above 0, found {found}")
            if point.schedule.sites != ordered[0].schedule.sites:
                found = f"{ordered[0].schedule.name!r} and {point.schedule.name!r} with different sites"
                raise EcadError(f"front {self.name!r}: expected schedules of one model, found {found}")
        object.__setattr__(self, "points", ordered)
        object.__setattr__(self, "provenance", plain.frozen(self.provenance, ("provenance",)))

    @property
    def schedules(self) -> tuple[CacheSchedule, ...]:
        """The schedules, cheapest first."""
        return tuple(point.schedule for point in self.points)

    def pick(self, *, speedup: float | None = None, quality: float | None = None) -> CacheSchedule:
        """Choose a schedule by speed-up or by quality: the one of `point`, with the same arguments and errors."""
        return self.point(speedup=speedup, quality=quality).schedule

    def point(self, *, speedup: float | None = None, quality: float | None = None) -> Point:
        """Choose a point by speed-up or by quality. Exactly one argument must be given.

        Args:
            speedup: choose the best schedule that costs at most 1 / speedup of an uncached image.
            quality: choose the cheapest schedule of at least this validation quality, in units of the front's scorer.

        Raises:
            EcadError: no schedule is cheap or good enough, or the number of arguments is not one.
        """
        if (speedup is None) == (quality is None):
            raise EcadError("Front.pick takes either speedup or quality, and not both")
        if speedup is not None:
            cheap = [point for point in self.points if point.cost * speedup <= 1 + _ROUNDING]
            if not cheap:
                most = f"at most {self.points[0].speedup:.2f}"
                raise EcadError(f"front {self.name!r}: no schedule is {speedup:g} times cheaper: expected {most}")
            return max(cheap, key=lambda point: (point.quality, -point.cost))
        good = [point for point in self.points if quality is not None and point.quality >= quality]
        if not good:
            most = f"at most {max(point.quality for point in self.points):.2f}"
            raise EcadError(f"front {self.name!r}: no schedule has a {self.scorer} of {quality:g}: expected {most}")
        return good[0]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the front to a file atomically, one schedule per line.

        Args:
            path: the file; missing folders are created.

        Raises:
            EcadError: the file cannot be written.
        """
        head = {
            "format": FORMAT,
            "name": self.name,
            "scorer": self.scorer,
            "unit": self.unit,
            "provenance": plain.thaw(self.provenance),
        }
        lines = ",\n".join(json.dumps(_written(point), allow_nan=False) for point in self.points)
        write_atomic(path, json.dumps(head, indent=1, allow_nan=False)[:-2] + f',\n "points": [\n{lines}\n ]\n}}\n')

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder to share, with the front's file and its card.

        Raises:
            EcadError: the folder cannot be written.
        """
        from ecad.schedules import sharing

        sharing.save_front_folder(self, folder)

    def push_to_hub(self, repo: str, private: bool = False) -> str:
        """Upload the front and its card to the Hugging Face Hub, as `CacheSchedule.push_to_hub` does a schedule."""
        from ecad.schedules import sharing

        return sharing.push(self, repo, private)

    @classmethod
    def load(cls, path: str | os.PathLike[str], revision: str | None = None) -> Front:
        """Read a front from a file, a shared folder, or the Hugging Face Hub.

        Args:
            path: the file; or a folder with `front.json` (of `save_pretrained`, or of a study); or "organisation/name"
                of a hub repository.
            revision: branch, tag or commit on the hub.

        Raises:
            ScheduleError: the file cannot be read, is not a front, or holds a malformed schedule.
            EcadError: there is no such folder, and the hub cannot be reached or has no such repository.
        """
        if Path(path).suffix != ".json" and not Path(path).is_file():
            from ecad.schedules import sharing

            path = sharing.pull(path, revision, sharing.FRONT)
        try:
            return _read(file_format.parse(Path(path).read_bytes().decode("utf-8-sig")))
        except ScheduleError as error:
            error.file = os.fspath(path)
            raise
        except EcadError as error:
            raise ScheduleError(str(error), file=path) from None
        except UnicodeDecodeError:
            raise ScheduleError("not text", file=path, expected="a front as JSON in UTF-8") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ScheduleError(f"cannot read this front: {reason}", file=path) from None


class _Point(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cost: PositiveFloat
    quality: FiniteFloat
    held_out: dict[str, Interval] = {}
    schedule: dict[str, JsonValue]
    each: dict[str, dict[str, JsonValue]] = {}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal["ecad front 1"]
    name: str
    scorer: str
    unit: Literal["MACs", "ns"]
    provenance: dict[str, JsonValue] = {}
    points: list[_Point] = JsonField(min_length=1)


def _written(point: Point) -> dict[str, object]:
    return {
        "cost": point.cost,
        "quality": point.quality,
        "held_out": {name: asdict(found) for name, found in point.held_out.items()},
        "schedule": point.schedule.to_json(),
        **({"each": {name: one.to_json() for name, one in point.each.items()}} if point.each else {}),
    }


def _read(document: object) -> Front:
    plain.check(document)
    try:
        found = _File.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise plain.fault("not a front", first["loc"], expected=first["msg"]) from None
    points = []
    for place, one in enumerate(found.points):
        try:
            schedule = CacheSchedule.from_json(one.schedule)
            each = {name: CacheSchedule.from_json(own) for name, own in one.each.items()}
        except ScheduleError as error:
            error.problem = f"points.{place}.schedule: {error.problem}"
            raise
        points.append(Point(schedule, one.cost, one.quality, one.held_out, each))
    return Front(found.name, points, found.scorer, found.unit, found.provenance)
