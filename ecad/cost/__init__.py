"""What a schedule costs: multiply-accumulates, counted without weights."""

from ecad.cost.architectures import Architecture, find_architecture, known_architectures
from ecad.cost.macs import (
    MacsTable,
    count_macs,
    count_macs_by_component,
    count_macs_by_step,
    macs_table,
    uncached_macs,
)

__all__ = [
    "Architecture",
    "MacsTable",
    "count_macs",
    "count_macs_by_component",
    "count_macs_by_step",
    "find_architecture",
    "known_architectures",
    "macs_table",
    "uncached_macs",
]
