"""Making and scoring the images of candidates, each once: what is in the study is not made again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ecad.errors import EcadError, NotFiniteError
from ecad.execution import Failure
from ecad.genetic.study.items import Batch, all_items
from ecad.genetic.study.store import Store
from ecad.prompts import Prompt
from ecad.schedules import CacheSchedule
from ecad.schedules.plan import plan_key

# One batch of images under a schedule.
Job = tuple[CacheSchedule, Batch]


class Evaluator(Protocol):
    """Anything that makes images under schedules and scores them.

    Attributes:
        scorer: the name that its scores go by in the study.
        prompts: what images are made of.
        seeds: of the images of each prompt.
        batch_size: images made at once. Batches are cut from `all_items` in order: an interruption changes none.
        decibels: whether a score is -10 log10 of a squared error, so that a search can read errors off it.
        settings: what else its scores depend on (generator, guidance scale, ...), as JSON values; a study refuses to
            go on with others.
    """

    @property
    def scorer(self) -> str: ...
    @property
    def prompts(self) -> Sequence[Prompt]: ...
    @property
    def seeds(self) -> Sequence[int]: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def decibels(self) -> bool: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...

    def run(self, jobs: Iterable[Job | None]) -> Iterator[tuple[int, np.ndarray | Failure]]:
        """Make and score batches.

        Args:
            jobs: taken when there is room for one; None says that there may be more when the next scores are known.

        Yields:
            (place of the job, its scores), in any order: float64 (items,), larger is better; or that it was given up.
        """
        ...

    def output_products(self) -> np.ndarray | None:
        """`CacheSchedule.output_products` of its first batch; None if it cannot tell."""
        ...


@dataclass(frozen=True)
class LocalEvaluator:
    """Makes and scores images in this process, one batch of one schedule after the other.

    Args:
        generate: (schedule, items) -> images, one an item, in any form that `score` takes.
        score: (images, items) -> float (items,), larger is better.
        scorer: name of the score.
        prompts: what images are made of.
        seeds: of the images of each prompt.
        batch_size: images made at once.
        decibels: whether a score is -10 log10 of a squared error.
        settings: what else the scores depend on (generator, guidance scale, ...), as JSON values.
        products_of: items -> `CacheSchedule.output_products`, from uncached images; None if nobody can tell.

    Raises:
        EcadError: no prompt, no seed, or no image a batch.

    >>> evaluator = LocalEvaluator(
    ...     generate=lambda schedule, items: [schedule.share_recomputed] * len(items),
    ...     score=lambda images, items: np.array(images), scorer="share",
    ...     prompts=[Prompt("0", "a fox")], seeds=[0, 1], batch_size=2)
    >>> schedule = CacheSchedule([[True, True], [False, True]], sites=(("0", "attn1"), ("0", "ff")))
    >>> evaluate(evaluator, [schedule])
    array([[0.75, 0.75]])
    """

    generate: Callable[[CacheSchedule, Batch], Any]
    score: Callable[[Any, Batch], np.ndarray]
    scorer: str
    prompts: Sequence[Prompt]
    seeds: Sequence[int]
    batch_size: int
    decibels: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    products_of: Callable[[Batch], np.ndarray | None] | None = None

    def __post_init__(self) -> None:
        for name, found in (
            ("prompts", len(self.prompts)),
            ("seeds", len(self.seeds)),
            ("batch_size", self.batch_size),
        ):
            if found < 1:
                raise EcadError(f"{name}: expected at least one, found {found}")

    def run(self, jobs: Iterable[Job | None]) -> Iterator[tuple[int, np.ndarray | Failure]]:
        for place, (schedule, items) in enumerate(filter(None, jobs)):
            found: np.ndarray | Failure
            try:
                found = self.score(self.generate(schedule, items), items)
            except NotFiniteError as error:
                found = Failure(str(error), tries=1)
            yield place, found

    def output_products(self) -> np.ndarray | None:
        first = all_items(self.prompts, self.seeds)[: self.batch_size]
        return None if self.products_of is None else self.products_of(first)


def evaluate(evaluator: Evaluator, schedules: Sequence[CacheSchedule], store: Store | None = None) -> np.ndarray:
    """Score every image of some schedules.

    Args:
        evaluator: makes and scores the images.
        schedules: of one model.
        store: of a study of that model, which knows some of the scores and learns the rest; None knows none.

    Returns:
        float64 (schedules, prompts * seeds), the scores of one prompt side by side.

    Raises:
        EcadError: a scorer's answer is not one finite number an item, or images could not be made.
    """
    if store is None:
        with Store.open(None) as memory:
            return evaluate(evaluator, schedules, memory)
    found = np.array(list(evaluate_each(evaluator, schedules, store)))
    for schedule, scores in zip(schedules, found, strict=True):
        if np.isnan(scores).any():
            reason = why_given_up(evaluator, schedule, store)
            raise EcadError(f"{evaluator.scorer} of schedule {schedule.name!r}: given up: {reason}")
    return found


def evaluate_each(
    evaluator: Evaluator, schedules: Sequence[CacheSchedule], store: Store, generation: int | None = None
) -> Iterator[np.ndarray]:
    """`evaluate`, schedule by schedule as they are ready; `generation` is where the study counts new images.

    The scores of images that were given up are NaN.
    """
    cards = [Card.of(evaluator, schedule, store) for schedule in schedules]
    by_plan: dict[bytes, Card] = {}
    for card in cards:
        by_plan.setdefault(card.plan, card)
    places = [(card, start) for card in by_plan.values() for start in card.missing]
    outcomes = evaluator.run([card.missing[start] for card, start in places])
    for card in cards:
        shared = by_plan[card.plan]
        while shared.missing:
            place, found = next(outcomes)
            owner, start = places[place]
            owner.keep(start, found, evaluator, store, generation)
        yield shared.scores


@dataclass(eq=False)
class Card:
    """What is known of a schedule's images, and what is not.

    Args:
        plan: what they depend on.
        scores: float64 (items,), NaN where there is none.
        missing: place of a batch's first image -> the batch, which is to be made.
    """

    plan: bytes
    scores: np.ndarray
    missing: dict[int, Job]

    @classmethod
    def of(cls, evaluator: Evaluator, schedule: CacheSchedule, store: Store) -> Card:
        """Look a schedule up in a study."""
        items, size = all_items(evaluator.prompts, evaluator.seeds), evaluator.batch_size
        plan = plan_key(schedule)
        scores = store.scores(plan, items, evaluator.scorer)
        given_up = np.array([reason is not None for reason in store.failures(plan, items, evaluator.scorer)])
        missing = {
            start: (schedule, items[start : start + size])
            for start in range(0, len(items), size)
            if np.isnan(scores[start : start + size]).any() and not given_up[start : start + size].any()
        }
        return cls(plan, scores, missing)

    def keep(
        self, start: int, found: np.ndarray | Failure, evaluator: Evaluator, store: Store, generation: int | None
    ) -> None:
        """Enter what came of a batch, here and in the study."""
        schedule, items = self.missing.pop(start)
        if isinstance(found, Failure):
            store.add_failures(self.plan, items, evaluator.scorer, found)
        else:
            scores = checked(found, schedule, items, evaluator.scorer)
            store.add_scores(self.plan, items, evaluator.scorer, scores, generation)
            self.scores[start : start + len(items)] = scores


def why_given_up(evaluator: Evaluator, schedule: CacheSchedule, store: Store) -> str | None:
    """Why images of a schedule were given up; None if none were."""
    items = all_items(evaluator.prompts, evaluator.seeds)
    return next(filter(None, store.failures(plan_key(schedule), items, evaluator.scorer)), None)


def checked(scores: object, schedule: CacheSchedule, items: Batch, scorer: str) -> np.ndarray:
    """The scores of a batch; raises EcadError if they are not one finite number an item."""
    found = np.asarray(scores, dtype=np.float64)
    if found.shape != (len(items),):
        expected = f"one score for each of {len(items)} images"
        raise EcadError(f"{scorer} of schedule {schedule.name!r}: expected {expected}, found shape {found.shape}")
    if not np.isfinite(found).all():
        item = items[int(np.argmin(np.isfinite(found)))]
        raise EcadError(
            f"{scorer} of schedule {schedule.name!r}, prompt {item.prompt.id!r}, seed {item.seed}: expected a finite "
            f"number, found {found[~np.isfinite(found)][0]}"
        )
    return found
