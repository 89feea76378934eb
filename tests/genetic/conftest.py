"""Searches that take less time."""

from few_offspring import few_offspring

__all__ = ["few_offspring"]
