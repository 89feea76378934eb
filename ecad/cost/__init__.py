"""The cost of a schedule: MACs, latency and memory; MACs and memory need no weights."""

from ecad.cost.architectures import Architecture, find_architecture, known_architectures
from ecad.cost.macs import count_macs, count_macs_by_component, count_macs_by_step, macs_table, uncached_macs
from ecad.cost.table import CostTable

__all__ = [
    "Architecture",
    "CostTable",
    "count_macs",
    "count_macs_by_component",
    "count_macs_by_step",
    "find_architecture",
    "known_architectures",
    "macs_table",
    "uncached_macs",
]
