"""A study: one search with everything it learnt, as its folder holds it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ecad.errors import EcadError, ScheduleError
from ecad.genetic.genes import Forecast, schedule_of
from ecad.genetic.study.items import Batch, Item, all_items
from ecad.genetic.study.layout import DATABASE
from ecad.genetic.study.store import CandidateRow, Store
from ecad.prompts import Prompt
from ecad.schedules import CacheSchedule
from ecad.schedules.output_products import read_products
from ecad.schedules.plan import plan_key
from ecad.schedules.schedule import Bits
from ecad.utils.pareto import hypervolume, pareto


@dataclass(frozen=True, eq=False)
class Candidate:
    """An evaluated schedule.

    Args:
        generation, number: its place in the study.
        plain: its schedule, by its name alone.
        cost: of one image.
        quality: mean score of its images, larger is better.
        unit: of the cost, "MACs" or "ns".
    """

    generation: int
    number: int
    plain: CacheSchedule = field(repr=False)
    cost: int
    quality: float
    unit: str = "MACs"

    @cached_property
    def schedule(self) -> CacheSchedule:
        """What it recomputes, with its cost and quality among the metrics."""
        macs = {"total_macs": self.cost, "total_macs_T": self.cost / 1e12}
        cost = macs if self.unit == "MACs" else {"expected_ms": self.cost / 1e6}
        return self.plain.replace(
            metrics={**cost, "quality": self.quality},
            attributes={"generation": self.generation, "candidate": self.number},
        )

    @property
    def recompute(self) -> Bits:
        """What it recomputes, bool (steps, sites)."""
        return self.plain.recompute

    @property
    def path(self) -> Path:
        """Its file inside the study's folder, as the paper's release lays it out."""
        return Path(f"gen_{self.generation:03d}", "candidates", f"cand_{self.number:03d}.json")


@dataclass(frozen=True)
class Generation:
    """Where a study stood when a generation was complete.

    Args:
        number: 0 for the initial population.
        images: made since the study began.
        seconds: spent since the study began.
        front_size: candidates that nothing evaluated so far beats.
        hypervolume: the area they dominate, as `front.hypervolume` has it, measured from the cost of an uncached image
            and the worst quality of generation 0.
    """

    number: int
    images: int
    seconds: float
    front_size: int
    hypervolume: float


class Study:
    """What a study holds, read at once: a search that goes on changes nothing.

    Args:
        store: open for as long as `scores` is to be asked.

    Attributes:
        settings: of the search.
        versions: package -> all versions of it that worked on the study.
        items: the images that every candidate is judged by.
        held_out: other images that were scored.
        candidates: all that were evaluated, in order, those of an unfinished generation too.
        unit: of all costs, "MACs" or "ns".
        history: one entry a complete generation.
        failures: name of a candidate that was given up -> why.

    Raises:
        EcadError: nothing is in it yet, or it is damaged.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.settings: dict[str, Any] = store.settings()
        if not self.settings:
            raise EcadError(f"{store.name}: the study is empty: its search was stopped before it began; run it again")
        try:
            self._read(store)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, EcadError) and not isinstance(error, ScheduleError):
                raise
            reason = f"{type(error).__name__}: {error}"
            raise EcadError(
                f"{store.name}: the study is damaged: {DATABASE}: {reason}; restore it from a copy"
            ) from error

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Study:
        """Read the study in a folder, finished or not, also while a search writes it.

        Raises:
            EcadError: there is no study, nothing is in it yet, or it is damaged or of a newer ecad.
        """
        store = Store.read(folder)
        try:
            return cls(store)
        except BaseException:
            store.close()
            raise

    def front(self) -> list[Candidate]:
        """The candidates within the search's limits that no other one equals or beats in both, cheapest first."""
        most, least = self.settings.get("max_cost"), self.settings.get("min_quality")
        cost = np.array([candidate.cost for candidate in self.candidates])
        quality = np.array([candidate.quality for candidate in self.candidates], dtype=np.float64)
        kept = [self.candidates[i] for i in pareto(cost, quality)]
        return [c for c in kept if (most is None or c.cost <= most) and (least is None or c.quality >= least)]

    def scores(self, candidate: Candidate) -> np.ndarray:
        """The scores of a candidate's images, float64 (items,); NaN where there is none."""
        return self.search_scores(candidate.schedule)

    def held_out_scores(self, schedule: CacheSchedule) -> np.ndarray:
        """The scores of a schedule's images of `held_out`, float64 (held_out,); NaN where there is none."""
        return self._store.scores(plan_key(schedule), self.held_out, self.settings["scorer"])

    def search_scores(self, schedule: CacheSchedule) -> np.ndarray:
        """`scores` of any schedule of the model, a candidate or not."""
        return self._store.scores(plan_key(schedule), self.items, self.settings["scorer"])

    def plot(self) -> Any:
        """Everything evaluated, and the front, generation by generation: a plotly figure (the extra `report`)."""
        # Searches know nothing of reports, but for this: people look for a study's picture here.
        from ecad.report import check_installed

        check_installed()
        from ecad.genetic.study.results import results_of
        from ecad.report.figures import front_figure

        return front_figure(results_of(self))

    @property
    def uncached(self) -> CacheSchedule:
        """The schedule of the study's model that recomputes everything."""
        settings = self.settings
        recompute = np.ones((settings["steps"], len(settings["sites"])), dtype=bool)
        products = read_products(settings.get("output_products"), len(recompute))
        return CacheSchedule(
            recompute, settings["sites"], "uncached", config=settings["config"], output_products=products
        )

    def close(self) -> None:
        """Close the study's file; all but the scores and `plot` stays usable."""
        self._store.close()

    def _read(self, store: Store) -> None:
        settings = self.settings
        self.versions = store.versions()
        self.uncached_cost: int = settings["uncached_cost"]
        self.items: Batch = all_items([Prompt(*prompt) for prompt in settings["prompts"]], settings["seeds"])
        scored = [Item(Prompt(id, text), seed) for id, text, seed in store.items(settings["scorer"])]
        known = {(item.prompt.id, item.prompt.text, item.seed) for item in self.items}
        self.held_out: Batch = tuple(i for i in scored if (i.prompt.id, i.prompt.text, i.seed) not in known)
        # Candidates first: a search that goes on may add generations in between, but takes none away.
        rows = store.candidates()
        self.unit = settings.get("unit", "MACs")
        forecast = settings.get("forecast", "never")
        if forecast not in get_args(Forecast):
            raise ValueError(f"forecast: expected one of {', '.join(get_args(Forecast))}, found {forecast!r}")
        make = partial(_candidate, template=self.uncached, forecast=forecast, unit=self.unit)
        self.candidates = [make(row, row.quality) for row in rows if row.quality is not None]
        self.failures: dict[str, str] = {}
        unfinished = set()
        for row in rows:
            if row.quality is None:
                plan = plan_key(make(row, np.nan).plain)
                if reason := next(filter(None, store.failures(plan, self.items, settings["scorer"])), None):
                    self.failures[name_of(row.generation, row.number)] = reason
                else:
                    unfinished.add(row.generation)
        self.history = self._history(store, unfinished)

    def _history(self, store: Store, unfinished: set[int]) -> list[Generation]:
        history: list[Generation] = []
        cost, quality, worst = np.zeros(0, dtype=np.int64), np.zeros(0), 0.0
        spent = {row.number: row for row in store.generations()}
        images, seconds = 0, 0.0
        for number, group in groupby(self.candidates, key=lambda candidate: candidate.generation):
            if number in unfinished:
                break
            members = list(group)
            cost = np.append(cost, [candidate.cost for candidate in members])
            quality = np.append(quality, [candidate.quality for candidate in members])
            worst = worst if number else float(quality.min())
            kept = pareto(cost, quality)
            cost, quality = cost[kept], quality[kept]
            images += spent[number].images
            seconds += spent[number].seconds
            area = hypervolume(cost, quality, self.uncached_cost, worst)
            history.append(Generation(number, images, seconds, len(kept), area))
        return history


def name_of(generation: int, number: int) -> str:
    """The name of a candidate's schedule."""
    return f"gen_{generation:03d}_cand_{number:03d}"


def _candidate(row: CandidateRow, quality: float, template: CacheSchedule, forecast: Forecast, unit: str) -> Candidate:
    shape = template.recompute.shape
    if len(row.bits) != -(-template.recompute.size // 8):
        raise ValueError(f"expected {template.recompute.size} bits, found {8 * len(row.bits)}")
    bits = np.unpackbits(np.frombuffer(row.bits, dtype=np.uint8), count=template.recompute.size)
    named = template.replace(name=name_of(row.generation, row.number))
    plain = schedule_of(bits.astype(bool).reshape(shape), named, forecast)
    return Candidate(row.generation, row.number, plain, row.cost, quality, unit)
