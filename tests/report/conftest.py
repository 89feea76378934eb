"""The fixtures of reports."""

from example_results import results

__all__ = ["results"]
