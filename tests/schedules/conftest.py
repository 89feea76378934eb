"""A schedule file of the published format, written by hand, and one of FLUX's blocks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from evolved import schedule

from ecad import CacheSchedule
from ecad.schedules import flux_sites

__all__ = ["schedule"]

PIXART = """{
    "cache_schedule": {
        "num_blocks": 2,
        "num_inference_steps": 2,
        "name": "tiny",
        "attributes": {
            "num_affected_steps": 1
        },
        "schedule": {
            "000": {
                "0": {
                    "attn1": true,
                    "attn2": true,
                    "ff": true
                },
                "1": {
                    "attn1": true,
                    "attn2": true,
                    "ff": true
                }
            },
            "001": {
                "0": {
                    "attn1": false,
                    "attn2": true,
                    "ff": false
                },
                "1": {
                    "attn1": false,
                    "attn2": false,
                    "ff": true
                }
            }
        }
    },
    "metrics": {
        "total_macs": 12345678901234567890,
        "latency": {
            "avg": 12.5,
            "latencies": [
                12.0,
                13.0
            ]
        }
    },
    "config": {
        "height": 256,
        "guidance_scale": 4.5
    }
}
"""


@pytest.fixture(scope="session")
def pixart_text() -> str:
    """The text of a whole file: two blocks, two steps."""
    return PIXART


@pytest.fixture
def pixart() -> dict[str, Any]:
    """The same file's JSON value."""
    document: dict[str, Any] = json.loads(PIXART)
    return document


@pytest.fixture
def flux() -> dict[str, Any]:
    """Three double and two single blocks, three steps."""
    return CacheSchedule(np.ones((3, 15), dtype=bool), flux_sites(3, 2), name="flux").to_json()
