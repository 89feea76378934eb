"""Loads the pipeline of a description, quantised or not, with its adapters."""

from __future__ import annotations

from typing import Any

import torch

from ecad.errors import EcadError, first_line
from ecad.image_generators.description import Description
from ecad.sites.discovery import denoisers
from ecad.utils.protocols import Pipeline


def load_pipeline(known: Description, dtype: torch.dtype) -> Pipeline:
    """Load a pipeline.

    Args:
        known: its description.
        dtype: precision of the weights.

    Raises:
        EcadError: the pipeline or an adapter cannot be loaded, or has no denoiser.
    """
    import diffusers

    place, name = known.pipeline, known.pipeline_class
    pipeline_class = getattr(diffusers, name or "DiffusionPipeline", None)
    if pipeline_class is None or not hasattr(pipeline_class, "from_pretrained"):
        raise EcadError(f"{place}: diffusers has no pipeline class {name!r}")
    try:
        quantised = {"quantization_config": _quantised(known)} if known.quantization_config else {}
        pipe: Pipeline = pipeline_class.from_pretrained(place, dtype=dtype, **quantised)
    except Exception as error:  # of diffusers, transformers or the hub, which do not say what they raise
        said = isinstance(error, ImportError | OSError | TypeError | ValueError)
        reason = first_line(error).split(" (")[0] if said else f"{type(error).__name__}: {first_line(error)}"
        raise EcadError(f"{place}: cannot load a diffusers pipeline from here: {reason}") from error
    denoisers(pipe)
    _load_adapters(pipe, known)
    return pipe


def _quantised(known: Description) -> Any:
    """Diffusers' form of what a description says component by component."""
    from diffusers.quantizers import DiffusersAutoQuantizer, PipelineQuantizationConfig

    return PipelineQuantizationConfig(
        quant_mapping={
            part: DiffusersAutoQuantizer.from_dict(dict(config)) for part, config in known.quantization_config.items()
        }
    )


def _load_adapters(pipe: Pipeline, known: Description) -> None:
    names = [f"adapter_{place}" for place in range(len(known.adapters))]
    for name, adapter in zip(names, known.adapters, strict=True):
        try:
            pipe.load_lora_weights(adapter.weights, adapter_name=name)
        except Exception as error:  # of peft, safetensors or the hub, and not part of their interfaces
            raise EcadError(f"{adapter.weights}: cannot load this adapter: {first_line(error)}") from error
    if names:
        pipe.set_adapters(names, [adapter.scale for adapter in known.adapters])
