"""Searches that rank fewer offspring, where a test is about something else than what they find."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecad.genetic.algorithms import surrogate_search

FEW = 10


def rank_few() -> None:
    """For processes of their own, which must search as the test's own process does."""
    surrogate_search.OFFSPRING_PER_ROUND = FEW


@pytest.fixture(scope="module")
def few_offspring() -> Iterator[None]:
    """The surrogate ranks this many offspring per round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surrogate_search, "OFFSPRING_PER_ROUND", FEW)
        yield
