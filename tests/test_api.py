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


WITHOUT_EXTRAS = """
import sys
for name in ("cleanfid", "torchmetrics", "torchvision", "ray", "plotly", "plotext", "jinja2", "matplotlib"):
    sys.modules[name] = None
import numpy, ecad
from ecad.execution.pool import WorkerSettings
from ecad.quality.features import get_feature_extractor
from ecad.quality.fid import Statistics, kid
from ecad.quality.scorers import get_scorer
from ecad.commands.report import report

def ray():
    with WorkerSettings("ray").open("x:y", {}, None):
        pass

stats = Statistics.of(numpy.ones((3, 2)))
images = numpy.zeros((1, 8, 8, 3), "uint8")
for call in (
    ecad.CacheSchedule([[True]], (("0", "ff"),)).plot,
    lambda: report("."),
    lambda: get_scorer("ssim", None, "cpu").score(images, ["x"], images),
    lambda: get_scorer("lpips", None, "cpu"),
    lambda: get_feature_extractor("inception_v3", None, "cpu"),
    lambda: kid(stats, stats),
    ray,
):
    try:
        call()
    except ecad.EcadError as error:
        print(str(error).split("pip install ")[1])
"""


def test_what_is_not_installed_is_named_as_pip_finds_it() -> None:
    report = ["jinja2 matplotlib plotext plotly"] * 2
    assert run(WITHOUT_EXTRAS).split("\n") == [*report, *["torchmetrics"] * 2, *["clean-fid"] * 2, "ray"]


def test_the_command_line_starts_without_extras_and_without_torch() -> None:
    code = WITHOUT_EXTRAS.split("import numpy")[0] + "import ecad.cli; print('torch' in sys.modules)"
    assert run(code) == "False"


@pytest.mark.parametrize("name", ecad.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(ecad, name) is not None
    assert name in dir(ecad)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="module 'ecad' has no attribute 'enable_cash'"):
        _ = ecad.enable_cash
