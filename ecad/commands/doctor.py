"""`ecad doctor`: the versions, devices and packages that belong in a bug report."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

from ecad.commands.main import finish, main
from ecad.commands.options import AsJson

# Packages that results depend on, or that stand behind an extra.
_PACKAGES = (
    *("torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface-hub"),
    *("numpy", "pillow", "pydantic", "pymoo", "rich", "typer"),
)
_GIB = 1 << 30


def doctor(as_json: AsJson = False) -> None:
    """Print versions, devices, weights, missing extras and disk space, for a bug report."""
    found = {
        "system": {
            "ecad": _version("ecad"),
            "python": f"{platform.python_version()} ({sys.executable})",
            "platform": platform.platform(),
        },
        "packages": {name: _version(name) for name in _PACKAGES},
        "extras": _extras(),
        "devices": _devices(),
        "weights": _weights(),
        "disk": _disk(),
    }
    lines = [line for title, facts in found.items() for line in [title, *_lines(facts), ""]]
    finish(found, "\n".join(lines[:-1]), as_json)


def _lines(facts: dict[str, str]) -> list[str]:
    width = max(map(len, facts), default=0)
    return [f"  {name:{width}}  {value}" for name, value in facts.items()]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _extras() -> dict[str, str]:
    """Extra -> "installed", or which of its packages are missing."""
    found: dict[str, list[str]] = {}
    for name, packages in _packages_of_extras().items():
        found[name] = [package for package in packages if _version(package) == "not installed"]
    return {
        name: "installed" if not missing else f"missing {', '.join(missing)}: pip install {' '.join(missing)}"
        for name, missing in found.items()
    }


def _packages_of_extras() -> dict[str, list[str]]:
    """Extra -> the packages that it adds, as the installed package says; extras of other extras are left out."""
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(text) for text in importlib.metadata.requires("ecad") or []]
    except importlib.metadata.PackageNotFoundError:  # run from a folder that is not installed
        return {}
    found: dict[str, list[str]] = {}
    for extra in importlib.metadata.metadata("ecad").get_all("Provides-Extra") or []:
        for one in requirements:
            applies = one.marker is not None and one.marker.evaluate({"extra": extra})
            if applies and not one.marker.evaluate({"extra": ""}) and one.name != "ecad":  # type: ignore[union-attr]
                found.setdefault(extra, []).append(one.name)
    return found


def _devices() -> dict[str, str]:
    try:
        import torch
    except Exception as error:  # a broken installation is what a doctor is asked about
        return {"torch": f"cannot be imported: {type(error).__name__}: {str(error).splitlines()[0]}"}
    found = {"cpu": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"}
    found["cpu"] += f", {torch.get_num_threads()} torch threads"
    for place in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(place)
        found[f"cuda:{place}"] = f"{facts.name}, {facts.total_memory / _GIB:.0f} GiB, CUDA {torch.version.cuda}"
    if torch.backends.mps.is_available():
        found["mps"] = "available"
    return found


def _weights() -> dict[str, str]:
    """Model -> where its weights are, or that they are not downloaded; nothing is loaded or downloaded."""
    from ecad.image_generators.known import WEIGHTS

    scorers = {
        "image_reward": "THUDM/ImageReward",
        "clip": "openai/clip-vit-base-patch32",
        "pick": "yuvalkirstain/PickScore_v1",
    }
    places = {name: [weights.transformer, weights.pipeline] for name, weights in WEIGHTS.items()}
    places |= {name: [place] for name, place in scorers.items()}
    return {name: _where([place for place in wanted if place]) for name, wanted in places.items()}


def _where(places: list[str]) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    missing = []
    for place in places:
        is_cached = (Path(HF_HUB_CACHE) / f"models--{place.replace('/', '--')}" / "snapshots").is_dir()
        if not (Path(place).is_dir() or is_cached):
            missing.append(place)
    return f"not downloaded: {', '.join(missing)}" if missing else f"found: {', '.join(places)}"


def _disk() -> dict[str, str]:
    from huggingface_hub.constants import HF_HUB_CACHE

    found: dict[str, str] = {}
    for name, folder in (("working folder", Path.cwd()), ("Hugging Face cache", Path(HF_HUB_CACHE))):
        there = next(place for place in (folder, *folder.parents) if place.exists())
        usage = shutil.disk_usage(there)
        found[name] = f"{folder}: {usage.free / _GIB:.1f} of {usage.total / _GIB:.1f} GiB free"
    return found


if __name__ == "__main__":
    main(doctor)
