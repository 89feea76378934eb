"""The fixtures of reports."""

from browser import browser, visit
from example_results import results
from image_folders import images

__all__ = ["browser", "images", "results", "visit"]
