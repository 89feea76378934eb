"""The tiny pipelines of diffusers' own tests, one for each pipeline class, ready to run."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import unittest
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ecad.sites.discovery import denoisers

STEPS = 4
_FOLDERS = ("tests/pipelines", "tests/modular_pipelines")
# Additional arguments of a class beside its test's inputs: smaller images, more steps.
_CHANGES: dict[str, dict[str, Any]] = {
    "HunyuanVideo15ModularPipeline": {"negative_prompt": "bad"},
    "Kandinsky5I2IPipeline": {"max_sequence_length": 400},
    "SanaPAGPipeline": {"use_resolution_binning": False},
    "SanaPipeline": {"use_resolution_binning": False},
    "SanaSprintImg2ImgPipeline": {"intermediate_timesteps": None, "use_resolution_binning": False},
    "SanaSprintPipeline": {"intermediate_timesteps": None, "use_resolution_binning": False},
}
_LARGEST_AREA = 64 * 64
# Modular pipeline -> the test of the standard pipeline with the same components.
_LENDERS = {
    "Flux2KleinBaseModularPipeline": "flux2/test_pipeline_flux2_klein.py",
    "Flux2KleinModularPipeline": "flux2/test_pipeline_flux2_klein.py",
    "Flux2ModularPipeline": "flux2/test_pipeline_flux2.py",
    "FluxKontextModularPipeline": "flux/test_pipeline_flux_kontext.py",
    "FluxModularPipeline": "flux/test_pipeline_flux.py",
    "HeliosModularPipeline": "helios/test_helios.py",
    "HunyuanVideo15ModularPipeline": "hunyuan_video1_5/test_hunyuan_1_5.py",
    "Krea2ModularPipeline": "krea2/test_krea2.py",
    "LTX2ModularPipeline": "ltx2/test_ltx2.py",
    "LTXModularPipeline": "ltx/test_ltx.py",
    "QwenImageEditModularPipeline": "qwenimage/test_qwenimage_edit.py",
    "QwenImageEditPlusModularPipeline": "qwenimage/test_qwenimage_edit_plus.py",
    "QwenImageModularPipeline": "qwenimage/test_qwenimage.py",
    "StableDiffusion3ModularPipeline": "stable_diffusion_3/test_pipeline_stable_diffusion_3.py",
    "WanModularPipeline": "wan/test_wan.py",
    "ZImageModularPipeline": "z_image/test_z_image.py",
}


@dataclass
class Subject:
    """A pipeline and the inputs of its test.

    Attributes:
        pipe: a diffusers pipeline with random weights.
        test: instance of its test class.
        latents: whether the pipeline can return latents; otherwise its default output is used.
        begin: called before each run.
    """

    pipe: Any
    test: Any
    latents: bool = True
    begin: Callable[[], Any] = lambda: None

    def inputs(self, seed: int = 0, **changes: Any) -> dict[str, Any]:
        """The arguments of a call; equal seeds give equal arguments."""
        torch.manual_seed(seed)
        takes = inspect.signature(self.test.get_dummy_inputs).parameters
        given = self.test.get_dummy_inputs(*(["cpu"] if "device" in takes else []))
        known = self.parameters()
        if "generator" in known:
            given["generator"] = torch.Generator().manual_seed(seed)
        if "num_inference_steps" in known:
            given["num_inference_steps"] = STEPS
        if not hasattr(self.test, "pipeline_blocks_class"):
            given |= {"output_type": "latent"} if "output_type" in known and self.latents else {}
        else:
            given["output"] = "latents" if self.latents else self.test.output_name
        return {**given, **_CHANGES.get(type(self.pipe).__name__, {}), **changes}

    def parameters(self) -> Iterable[str]:
        """Names of the pipeline's call arguments."""
        if hasattr(self.test, "pipeline_blocks_class"):
            return {*self.pipe.blocks.input_names, "generator", "num_inference_steps"}
        return inspect.signature(type(self.pipe).__call__).parameters.keys()

    def run(self, seed: int = 0, **changes: Any) -> list[torch.Tensor]:
        """All tensors in the output of one call."""
        inputs = self.inputs(seed, **changes)
        self.begin()
        with torch.no_grad():
            return tensors(self.pipe(**inputs))


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors, arrays and images in a pipeline's output, as tensors."""
    if isinstance(value, torch.Tensor):
        return [value.detach().clone()]
    if isinstance(value, dict):
        return tensors(list(value.values()))
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors(part)]
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        import numpy as np

        return [torch.from_numpy(np.array(value))]
    return []


def files(checkout: Path) -> list[Path]:
    """The test files of pipelines in a diffusers checkout, those with a transformer first."""
    found = sorted(path for folder in _FOLDERS for path in (checkout / folder).glob("*/test_*.py"))
    return sorted(
        (path for path in found if re.search("get_dummy_components|pipeline_blocks_class", path.read_text())),
        key=lambda path: re.search(r"Transformer\w*Model|modular", path.read_text()) is None,
    )


def tests_in(checkout: Path, file: Path) -> Iterator[type]:
    """The test classes of a file, one per pipeline class."""
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    name = ".".join(file.relative_to(checkout).with_suffix("").parts)
    module = importlib.import_module(name)
    seen = set()
    for cls in vars(module).values():
        if not inspect.isclass(cls) or cls.__module__ != name or not hasattr(cls, "get_dummy_inputs"):
            continue
        pipeline_class = getattr(cls, "pipeline_class", None)
        if inspect.isclass(pipeline_class) and pipeline_class not in seen:
            seen.add(pipeline_class)
            yield cls


def class_name(test_class: type) -> str:
    """The pipeline class of a test; some tests wrap it in their own."""
    mro = test_class.pipeline_class.__mro__  # type: ignore[attr-defined]
    return next((cls.__name__ for cls in mro if cls.__module__.startswith("diffusers.")), mro[0].__name__)


def build(checkout: Path, test_class: Any) -> Subject:
    """Build the pipeline of a test class; call `prepare` before running it."""
    test = test_class("run") if issubclass(test_class, unittest.TestCase) else test_class()
    with suppress(pytest.skip.Exception):  # deprecated pipelines are included
        getattr(test, "setUp", lambda: None)()
    torch.manual_seed(0)
    _keep_pictures_small(test.pipeline_class)
    if hasattr(test, "pipeline_blocks_class"):
        pipe = _modular(checkout, test)
    else:
        pipe = test.pipeline_class(**test.get_dummy_components())
    if hasattr(pipe, "resolutions"):
        pipe.resolutions = [(64, 64)]
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.eval()
    return Subject(pipe, test)


def _modular(checkout: Path, test: Any) -> Any:
    """A modular pipeline with the components of a standard one; its own are only on the hub."""
    name = test.pipeline_class.__name__
    if name not in _LENDERS:
        raise OSError("its components are on the hub, and no test of diffusers' makes such")
    lender = next(tests_in(checkout, checkout / _FOLDERS[0] / _LENDERS[name]))
    lent = build(checkout, lender).pipe.components
    pipe = test.pipeline_blocks_class().init_pipeline()
    pipe.update_components(**{name: part for name, part in lent.items() if name in pipe._component_specs})
    return pipe


def prepare(subject: Subject) -> None:
    """Use weights that all affect the output, and latents as output if possible: they show every bit."""
    weights = {name: value.clone() for name, value in _denoiser_weights(subject.pipe)}
    for name, value in _denoiser_weights(subject.pipe):
        value.data.copy_(_weights_that_matter(name, value))
    try:
        found = subject.run()
    except Exception:
        subject.latents = False
        found = subject.run()
    if not found:
        subject.latents = False
        found = subject.run()
    if not all(tensor.double().isfinite().all() for tensor in found):
        for name, value in _denoiser_weights(subject.pipe):
            value.data.copy_(weights[name])


def _denoiser_weights(pipe: Any) -> Iterator[tuple[str, nn.Parameter]]:
    for part, module in denoisers(pipe).items():
        yield from ((f"{part}.{name}", value) for name, value in module.named_parameters())


def _weights_that_matter(name: str, value: torch.Tensor) -> torch.Tensor:
    """Random weights that preserve the scale of activations; those of tests are often zero in the last layer."""
    generator = torch.Generator().manual_seed(len(name) + value.numel())
    drawn = torch.randn(value.shape, generator=generator)
    if value.ndim > 1:
        return drawn / max(1, value[0].numel()) ** 0.5
    return 1 + 0.1 * drawn if name.endswith("weight") else 0.2 * drawn


def _keep_pictures_small(pipeline_class: type) -> None:
    """QwenImage's editing enlarges every image to a million pixels."""
    name = "modular_pipelines.qwenimage.encoders" if "Modular" in pipeline_class.__name__ else ""
    module = sys.modules.get(f"diffusers.{name}" if name else pipeline_class.__module__)
    original = getattr(module, "calculate_dimensions", None)
    if original is not None:
        module.calculate_dimensions = lambda area, ratio: original(min(area, _LARGEST_AREA), ratio)  # type: ignore
