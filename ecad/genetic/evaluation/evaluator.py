"""Makes and scores the images of candidates, each once: images with a score in the study are not made again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ecad.calibration.step_choice import Outputs
from ecad.errors import EcadError, NotFiniteError
from ecad.execution import Failure
from ecad.genetic.study.items import Batch, all_items
from ecad.genetic.study.store import Store
from ecad.prompts import Prompt
from ecad.schedules import CacheSchedule
from ecad.schedules.plan_key import plan_key

# Among an evaluator's settings: the number of steps of the uncached images that scores are relative to, where searches
# of several numbers of steps share them.
REFERENCE_STEPS = "reference_steps"
# One batch of images under a schedule.
Job = tuple[CacheSchedule, Batch]


class Evaluator(Protocol):
    """Makes images under schedules and scores them.

    Attributes:
        scorer: the name of its scores in the study.
        prompts: of the images.
        seeds: of the images of each prompt.
        batch_size: images per batch. Batches are cut from `all_items` in order, so an interruption changes none.
        decibels: whether a score is -10 log10 of a squared error, so that a search can read errors off it.
        settings: everything else that its scores depend on (generator, guidance scale, ...), as JSON values; a study
            cannot be resumed with others.
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
    def settings(self) -> Mapping[str, object]: ...

    def run(self, jobs: Iterable[Job | None]) -> Iterator[tuple[int, np.ndarray | Failure]]:
        """Make and score batches.

        Args:
            jobs: taken as capacity allows; None means that there may be more once the next scores are known.

        Yields:
            (index of the job, its scores), in any order: float64 (items,), larger is better; or a `Failure`.
        """
        ...

    def outputs(self) -> Outputs | None:
        """What the outputs of its first batch tell, uncached; None if this is unknown."""
        ...


@dataclass(frozen=True)
class LocalEvaluator:
    """Makes and scores images in this process, one batch of one schedule after the other.

    Args:
        generate: (schedule, items) -> one image per item, in any form that `score` takes.
        score: (images, items) -> float (items,), larger is better.
        scorer: name of the score.
        prompts: of the images.
        seeds: of the images of each prompt.
        batch_size: images per batch.
        decibels: whether a score is -10 log10 of a squared error.
        settings: everything else that the scores depend on (generator, guidance scale, ...), as JSON values.
        outputs_of: items -> what the outputs of their uncached images tell; None if this is unknown.

    Raises:
        EcadError: there is no prompt or no seed, or the batch size is not positive.

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
    settings: Mapping[str, object] = field(default_factory=dict)
    outputs_of: Callable[[Batch], Outputs | None] | None = None

    def __post_init__(self) -> None:
        for name, found in (
            ("prompts", len(self.prompts)),
            ("seeds", len(self.seeds)),
            ("batch_size", self.batch_size),
        ):
            if found < 1:
                raise EcadError(f"`{name}`: expected at least one, found {found}")

    def run(self, jobs: Iterable[Job | None]) -> Iterator[tuple[int, np.ndarray | Failure]]:
        for place, (schedule, items) in enumerate(filter(None, jobs)):
            found: np.ndarray | Failure
            try:
                found = self.score(self.generate(schedule, items), items)
            except NotFiniteError as error:
                found = Failure(str(error), tries=1)
            yield place, found

    def outputs(self) -> Outputs | None:
        first = all_items(self.prompts, self.seeds)[: self.batch_size]
        return None if self.outputs_of is None else self.outputs_of(first)


def evaluate(evaluator: Evaluator, schedules: Sequence[CacheSchedule], store: Store | None = None) -> np.ndarray:
    """Score every image of some schedules.

    Args:
        evaluator: makes and scores the images.
        schedules: of one model.
        store: of a study of that model, whose scores are used and which receives the new ones; None stores nothing.

    Returns:
        float64 (schedules, prompts * seeds), the scores of one prompt side by side.

    Raises:
        EcadError: a scorer does not return one finite number per item, or images could not be made.
    """
    if store is None:
        with Store.open(None) as memory:
            return evaluate(evaluator, schedules, memory)
    found = np.array(list(evaluate_each(evaluator, schedules, store)))
    for schedule, scores in zip(schedules, found, strict=True):
        if np.isnan(scores).any():
            reason = failure_reason(evaluator, schedule, store)
            raise EcadError(f"{evaluator.scorer} of schedule {schedule.name!r}: given up: {reason}")
    return found


def evaluate_each(
    evaluator: Evaluator, schedules: Sequence[CacheSchedule], store: Store, generation: int | None = None
) -> Iterator[np.ndarray]:
    """`evaluate`, yielding each schedule's scores as soon as they and all earlier ones are complete.

    Args:
        evaluator, schedules, store: as for `evaluate`.
        generation: for which the study counts new images.

    Yields:
        float64 (prompts * seeds,), NaN for images that were given up.
    """
    evaluations = [Evaluation.from_store(evaluator, schedule, store) for schedule in schedules]
    by_plan: dict[bytes, Evaluation] = {}
    for evaluation in evaluations:
        by_plan.setdefault(evaluation.plan, evaluation)
    batches = [(evaluation, start) for evaluation in by_plan.values() for start in evaluation.missing]
    outcomes = evaluator.run([evaluation.missing[start] for evaluation, start in batches])
    for evaluation in evaluations:
        shared = by_plan[evaluation.plan]
        while shared.missing:
            place, found = next(outcomes)
            owner, start = batches[place]
            owner.record(start, found, evaluator, store, generation)
        yield shared.scores


@dataclass(eq=False)
class Evaluation:
    """The scores of a schedule's images, and the batches that are still to be made.

    Args:
        plan: key of the schedule's images, see `plan_key`.
        scores: float64 (items,), NaN where there is none.
        missing: index of a batch's first image -> the batch.
    """

    plan: bytes
    scores: np.ndarray
    missing: dict[int, Job]

    @classmethod
    def from_store(cls, evaluator: Evaluator, schedule: CacheSchedule, store: Store) -> Evaluation:
        """Read the scores of a schedule from a study."""
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

    def record(
        self, start: int, found: np.ndarray | Failure, evaluator: Evaluator, store: Store, generation: int | None
    ) -> None:
        """Store the result of a batch, here and in the study."""
        schedule, items = self.missing.pop(start)
        if isinstance(found, Failure):
            store.add_failures(self.plan, items, evaluator.scorer, found)
        else:
            scores = check_scores(found, schedule, items, evaluator.scorer)
            store.add_scores(self.plan, items, evaluator.scorer, scores, generation)
            self.scores[start : start + len(items)] = scores


def failure_reason(evaluator: Evaluator, schedule: CacheSchedule, store: Store) -> str | None:
    """The reason why images of a schedule were given up; None if none were."""
    items = all_items(evaluator.prompts, evaluator.seeds)
    return next(filter(None, store.failures(plan_key(schedule), items, evaluator.scorer)), None)


def check_scores(scores: object, schedule: CacheSchedule, items: Batch, scorer: str) -> np.ndarray:
    """The scores of a batch as float64 (items,); raises EcadError unless they are one finite number per item."""
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
