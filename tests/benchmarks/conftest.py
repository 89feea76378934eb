"""The rivals that benchmarks compare with."""

from rival_modules import rivals

__all__ = ["rivals"]
