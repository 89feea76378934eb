"""Image generators that are not registered: any diffusers pipeline with one denoiser, from a folder, the hub or a file.

Two steps of one image show what is known in advance of registered generators: the image size, the inputs and number of
denoiser calls, their MACs, and the sizes of all outputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch

from ecad.cost.architectures import Architecture
from ecad.cost.measure import Measured, measure
from ecad.errors import EcadError, first_line
from ecad.image_generators.description import Description
from ecad.image_generators.generator import ImageGenerator, pictures_of
from ecad.image_generators.text_inputs import encode_text, text_inputs
from ecad.runtime.compatibility import latent_shape
from ecad.runtime.output_sizes import as_meta, on_meta, output_sizes
from ecad.runtime.overrides import Around
from ecad.sites.discovery import denoisers, discover, one_denoiser

_TRIAL_STEPS = 2
_TRIAL_PROMPT = "a photo"


def load_any(name: str, known: Description, device: str, dtype: torch.dtype | None) -> ImageGenerator:
    """Load a pipeline and make a trial image.

    Args:
        name: name of the image generator.
        known: the description of the pipeline.
        device: where it runs.
        dtype: precision of the weights; overrides the description.

    Raises:
        EcadError: the pipeline cannot be loaded, does not have exactly one denoiser, or cannot be called with a prompt.
    """
    own = getattr(torch, known.dtype) if known.dtype else torch.float32 if device == "cpu" else torch.bfloat16
    pipe = _load(known.pipeline, dtype or own)
    pipe.set_progress_bar_config(disable=True)
    pipe.to(device)
    takes = inspect.signature(pipe.__call__).parameters
    sizes = {"height": known.height, "width": known.width}
    call = known.call | {key: value for key, value in sizes.items() if value is not None}
    guided = {} if known.guidance_scale is None else {"guidance_scale": known.guidance_scale}
    if odd := [key for key in (*call, *guided, "prompt", "num_inference_steps") if key not in takes]:
        raise EcadError(f"{name}: {type(pipe).__name__} cannot be called with the argument {odd[0]!r}")
    steps = known.steps or takes["num_inference_steps"].default
    if not isinstance(steps, int):
        raise EcadError(
            f"{name}: {type(pipe).__name__} has no default number of steps; describe the pipeline in a .json file with "
            "`steps` (docs/your-own-model.md)"
        )
    denoiser: Any = one_denoiser(pipe)
    (height, width), measured = _try_out(name, pipe, denoiser, call | guided)
    architecture = Architecture(
        image_generator=name,
        transformer=dict(denoiser.config),
        height=height,
        width=width,
        text_tokens=0,
        guidance_pair=False,
        steps=steps,
        measured=measured,
    )
    return ImageGenerator(
        name=name,
        pipe=pipe,
        architecture=architecture,
        steps=steps,
        guidance_scale=known.guidance_scale,
        encode_prompts=encode_text,
        pipeline_inputs=text_inputs,
        call=call,
        max_tokens=None,
        text_width=1,
    )


def _load(place: str, dtype: torch.dtype) -> Any:
    from diffusers import DiffusionPipeline

    try:
        pipe = DiffusionPipeline.from_pretrained(place, dtype=dtype)
    except (OSError, ValueError) as error:
        raise EcadError(
            f"{place}: cannot load a diffusers pipeline from here: {first_line(error).split(' (')[0]}"
        ) from error
    modules = denoisers(pipe)
    if len(modules) > 1:
        raise EcadError(
            f"{type(pipe).__name__} has {len(modules)} denoisers ({', '.join(modules)}), which image generators do not "
            "support; use the Python API (docs/your-own-model.md#in-python)"
        )
    return pipe


def _try_out(name: str, pipe: Any, denoiser: Any, call: Mapping[str, Any]) -> tuple[tuple[int, int], dict[str, Any]]:
    """Make one image; returns its size in pixels, and its measurements as JSON values (see `Architecture`)."""
    calls: list[dict[str, Any]] = []

    def remember(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        # Only the tensors of the first call are needed, and keeping others costs memory.
        bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        calls.append(bound if not calls else {})

    rows = 0

    def count(step: Any, args: Any, kwargs: Any) -> Any:
        nonlocal rows
        rows += 1
        return step(*args, **kwargs)

    hook = denoiser.register_forward_pre_hook(remember, with_kwargs=True)
    counters = [Around(pipe.scheduler, "step", count)] if hasattr(pipe, "scheduler") else []
    try:
        with torch.no_grad():
            output = pipe(prompt=[_TRIAL_PROMPT], num_inference_steps=_TRIAL_STEPS, output_type="np", **call)
    except Exception as error:  # the pipeline may be anybody's code
        raise EcadError(
            f"{name}: {type(pipe).__name__} failed to make an image: {type(error).__name__}: {first_line(error)}; if "
            "it needs further arguments, describe the pipeline in a .json file with `call` (docs/your-own-model.md)"
        ) from error
    finally:
        hook.remove()
        for counter in counters:
            counter.remove()
    passes = max(1, round(len(calls) / (rows or _TRIAL_STEPS)))
    arguments = calls[0]
    found, kept = _measure(denoiser, arguments)
    per_number = next(denoiser.parameters()).element_size()
    height, width = pictures_of(output).shape[1:3]
    return (height, width), {
        "sites": [list(site) for site in found.sites],
        "layers": (passes * found.layers).tolist(),
        "attention": (passes * found.attention).tolist(),
        "kept_numbers": (passes * kept // per_number).tolist(),
        "latents": list(latent_shape(list(arguments.values()))),
    }


def _measure(denoiser: torch.nn.Module, arguments: Mapping[str, Any]) -> tuple[Measured, Any]:
    """MACs of one forward and bytes of its outputs, on the meta device if the model allows it, which saves memory."""
    with suppress(Exception):  # some models need the values of tensors, which meta tensors do not have
        twin, shapes = on_meta(denoiser), as_meta(arguments)
        return measure(twin, shapes), output_sizes(twin, discover(twin), (), shapes)
    return measure(denoiser, arguments), output_sizes(denoiser, discover(denoiser), (), arguments)
