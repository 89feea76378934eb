"""Fixtures of all jobs."""

from generated_images import every_2, generator, stores

__all__ = ["every_2", "generator", "stores"]
