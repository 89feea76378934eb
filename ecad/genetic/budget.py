"""When a search ends, and how a number of images is divided between search and selection."""

from __future__ import annotations

from dataclasses import dataclass

from ecad.errors import EcadError

# Of a budget in images, the part that selects by validation prompts.
_SELECTION_SHARE = 1 / 3
# The candidates that a search in mode fast should be able to afford: at 20 steps, a calibration's schedules and the
# probes are about this many. More prompts per candidate come after that.
_CANDIDATES = 60
# The best of so many speed-ups, at least, should be validated.
_FINALISTS = 5
# A generation improves a front if its hypervolume grows by at least this part.
MIN_GAIN = 1e-3


@dataclass(frozen=True)
class Budget:
    """When a search ends, counted over the whole study.

    Args:
        generations: the initial one included; None sets no limit.
        max_seconds: the search ends after the candidate in which they run out; None sets no limit.
        max_images: no candidate is made for which they would not suffice; None sets no limit.
        patience: the search ends after this number of generations, one after the other, that did not improve the front;
            None sets no limit.
    """

    generations: int | None = None
    max_seconds: float | None = None
    max_images: int | None = None
    patience: int | None = None

    def is_stale(self, areas: list[float]) -> bool:
        """Whether the last `patience` generations did not improve the front; `areas` are hypervolumes, one each.

        >>> budget = Budget(patience=2)
        >>> [budget.is_stale(areas) for areas in ([5.0], [5.0, 6.0, 6.0], [5.0, 6.0, 6.0, 6.0])]
        [False, False, True]
        """
        if self.patience is None or len(areas) <= self.patience:
            return False
        return areas[-1] <= areas[-1 - self.patience] * (1 + MIN_GAIN)


@dataclass(frozen=True)
class Division:
    """How a number of images is divided.

    Args:
        search_prompts: each candidate is scored on.
        search_images: of all candidates of all searches.
        validation_prompts: the finalists are scored on.
        finalists: the most candidates that are scored on the validation prompts, not counting what is fitted to them.
        validation_images: of all rounds of the validation.
    """

    search_prompts: int
    search_images: int
    validation_prompts: int
    finalists: int
    validation_images: int


def divide(
    max_images: int, *, searches: int = 1, search_prompts: int | None = None, most_prompts: int, most_validation: int
) -> Division:
    """Divide a number of images between searches and selection.

    Args:
        max_images: in all, without those of held-out prompts.
        searches: number of searches, one per number of steps.
        search_prompts: images of each candidate, if this is not to be divided; None for as many as leave room for
            enough candidates.
        most_prompts: the most search prompts.
        most_validation: the most validation prompts; 0 if none are there, and all images are the searches'.

    Raises:
        EcadError: there are too few images for any search.

    >>> divide(120, most_prompts=4, most_validation=8)
    Division(search_prompts=1, search_images=80, validation_prompts=2, finalists=6, validation_images=27)
    >>> divide(600, most_prompts=4, most_validation=8)
    Division(search_prompts=4, search_images=400, validation_prompts=8, finalists=7, validation_images=140)
    """
    kept = int(max_images * _SELECTION_SHARE) if most_validation else 0
    prompts = search_prompts or max(1, min(most_prompts, (max_images - kept) // (_CANDIDATES * searches)))
    if not most_validation:
        return Division(prompts, max_images, 0, 0, 0)
    # A finalist is validated, fitted along two batches, and validated again; uncached images come first.
    validation = max(1, min(most_validation, kept // (2 * _FINALISTS + 1) - prompts))
    finalists = (kept - validation - prompts) // (2 * (validation + prompts))
    if finalists < 1:
        raise EcadError(
            f"`max_images` {max_images} is too few to search and to select: give more, fewer prompts, or use "
            "`ecad calibrate`"
        )
    # All finalists may be fitted; the images of those that are not serve later rounds of the validation.
    return Division(prompts, max_images - kept, validation, finalists, kept - prompts * (1 + 2 * finalists))
