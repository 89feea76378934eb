"""The tiny pipelines."""

from tiny_pipelines import flux, make, pixart, tiny

__all__ = ["flux", "make", "pixart", "tiny"]
