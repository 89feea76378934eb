from __future__ import annotations

import subprocess
import sys

import pytest

import ecad


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_ecad_imports_nothing_heavy() -> None:
    heavy = ("torch", "diffusers", "transformers", "numpy", "pydantic", "rich")
    assert run(f"import sys, ecad; print([name for name in {heavy} if name in sys.modules])") == "[]"


def test_schedules_need_no_torch() -> None:
    code = "import sys, ecad; ecad.CacheSchedule([[True]], (('a', 'b'),)).show(); print('torch' in sys.modules)"
    assert run(code) == "False"


@pytest.mark.parametrize("name", ecad.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(ecad, name) is not None
    assert name in dir(ecad)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="module 'ecad' has no attribute 'enable_cash'"):
        _ = ecad.enable_cash
