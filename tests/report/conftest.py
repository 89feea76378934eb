"""The fixtures of reports."""

from example_results import results
from image_folders import images

__all__ = ["images", "results"]
