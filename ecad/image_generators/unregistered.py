"""Image generators that are not registered: any diffusers pipeline with one denoiser, from a folder, the hub or a file.

Two steps of one image show what is known in advance of registered generators: the image size, the inputs and number of
denoiser calls, their MACs, and the sizes of all outputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveInt, ValidationError

from ecad.cost.architectures import Architecture
from ecad.cost.measure import Measured, measure
from ecad.errors import EcadError, first_line
from ecad.image_generators.generator import ImageGenerator, pictures_of
from ecad.image_generators.text_inputs import encode_text, text_inputs
from ecad.runtime.compatibility import latent_shape
from ecad.runtime.output_sizes import as_meta, on_meta, output_sizes
from ecad.runtime.overrides import Around
from ecad.sites.discovery import denoisers, discover, one_denoiser
from ecad.utils.files import parse_json

_TRIAL_STEPS = 2
_TRIAL_PROMPT = "a photo"


class Description(BaseModel):
    """The description of a pipeline in a `.json` file. All fields but the first default to the pipeline's own values.

    Args:
        pipeline: hub id, or folder relative to the file.
        steps: number of denoising steps.
        guidance_scale: strength of the prompt.
        height, width: size of an image in pixels.
        dtype: precision of the weights; by default float32 on a CPU and bfloat16 on an accelerator.
        call: further keyword arguments of the pipeline's call.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    pipeline: str = Field(min_length=1)
    steps: PositiveInt | None = None
    guidance_scale: float | None = Field(default=None, ge=0)
    height: PositiveInt | None = None
    width: PositiveInt | None = None
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    call: dict[str, JsonValue] = {}


def describe(name: str) -> Description | None:
    """Read the description of a pipeline before it is loaded.

    Args:
        name: a `.json` file, a folder, or a hub id.

    Returns:
        the description; None if the name is none of these.

    Raises:
        EcadError: the file is not a description.

    >>> describe("org/model").pipeline
    'org/model'
    >>> describe("FluxImageGenerator") is None
    True
    """
    path = Path(name)
    if path.suffix != ".json":
        is_place = path.is_dir() or (name.count("/") == 1 and not path.is_absolute())
        return Description(pipeline=name) if is_place else None
    try:
        found = Description.model_validate(parse_json(path.read_bytes()))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise EcadError(f"{name} is not a description of a pipeline: {where}: {first['msg']}") from None
    except (OSError, ValueError) as error:
        raise EcadError(f"{name}: cannot read this description of a pipeline: {error}") from error
    local = path.parent / found.pipeline
    return found.model_copy(update={"pipeline": str(local)}) if local.is_dir() else found


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
