"""A model that takes less time."""

from short_flux import short_flux

__all__ = ["short_flux"]
