"""Searches and models that take less time."""

from few_offspring import few_offspring
from short_flux import short_flux

__all__ = ["few_offspring", "short_flux"]
