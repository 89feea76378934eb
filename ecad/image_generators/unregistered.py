"""Image generators that are not registered: diffusers pipelines with transformers, from a folder, the hub or a file.

One trial image shows what is known in advance of registered generators: the image size, the inputs of each denoiser
and the rows in which it runs, their MACs, and the sizes of all outputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from PIL import Image

from ecad.cost.architectures import Architecture
from ecad.cost.measure import Measured, measure
from ecad.errors import EcadError, first_line
from ecad.image_generators.description import Description
from ecad.image_generators.generator import ImageGenerator, frames_of, pictures_of
from ecad.image_generators.loading import load_pipeline
from ecad.image_generators.text_inputs import encode_text, text_inputs
from ecad.image_generators.trial import Trial
from ecad.images.files import content_digest, read_image
from ecad.runtime.compatibility import latent_shape
from ecad.runtime.output_sizes import as_meta, floating_dtype, on_meta, output_sizes
from ecad.sites.discovery import denoisers, discover, whole
from ecad.sites.names import DENOISER_SITES
from ecad.sites.several import joint_sites
from ecad.utils.batching import AdaptiveBatches
from ecad.utils.protocols import Pipeline


def load_any(name: str, known: Description, device: str, dtype: torch.dtype | None) -> ImageGenerator:
    """Load a pipeline and make a trial image.

    Args:
        name: name of the image generator.
        known: the description of the pipeline.
        device: where it runs.
        dtype: precision of the weights; overrides the description.

    Raises:
        EcadError: the pipeline cannot be loaded, has no denoiser, or cannot be called with a prompt; or an image for
            its call cannot be read.
    """
    own = getattr(torch, known.dtype) if known.dtype else torch.float32 if device == "cpu" else torch.bfloat16
    images, digests = _pictures(known.images)
    pipe = load_pipeline(known, dtype or own)
    pipe.set_progress_bar_config(disable=True)
    pipe.to(device)
    takes = inspect.signature(pipe.__call__).parameters
    sizes = {"height": known.height, "width": known.width}
    call = known.call | {key: value for key, value in sizes.items() if value is not None}
    guided = {} if known.guidance_scale is None else {"guidance_scale": known.guidance_scale}
    if odd := [key for key in (*call, *images, *guided, "prompt", "num_inference_steps") if key not in takes]:
        raise EcadError(f"{name}: {type(pipe).__name__} cannot be called with the argument {odd[0]!r}")
    steps = known.steps or takes["num_inference_steps"].default
    if not isinstance(steps, int):
        raise EcadError(
            f"{name}: {type(pipe).__name__} has no default number of steps; describe the pipeline in a .json file with "
            "`steps` (docs/your-own-model.md)"
        )
    modules = denoisers(pipe)
    first: Any = next(iter(modules.values()))
    (height, width), measured = _try_out(name, pipe, modules, call | images | guided, steps, known.macs)
    architecture = Architecture(
        image_generator=name,
        transformer=dict(first.config),
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
        images=images,
        image_digests=digests,
        # Pipelines differ in how a batch shares a picture; one image at a time all of them take it.
        making=AdaptiveBatches("images", limit=1 if images else None),
    )


def _pictures(files: Mapping[str, str | list[str]]) -> tuple[dict[str, object], dict[str, object]]:
    """The pictures that a pipeline is called with, and the digests of their files."""

    def read(file: str) -> Image.Image:
        return Image.fromarray(read_image(file))

    def digest(file: str) -> str:
        return content_digest(file).hex()[:16]

    def each(make: Callable[[str], object]) -> dict[str, object]:
        return {
            name: [make(file) for file in found] if isinstance(found, list) else make(found)
            for name, found in files.items()
        }

    return each(read), each(digest)


def _try_out(
    name: str,
    pipe: Pipeline,
    modules: Mapping[str, torch.nn.Module],
    call: Mapping[str, object],
    steps: int,
    macs: Mapping[str, int],
) -> tuple[tuple[int, int], dict[str, object]]:
    """Make one image; returns its size in pixels, and its measurements as JSON values (see `Architecture`)."""
    if odd := [part for part in macs if part not in modules]:
        raise EcadError(f"{name}: `macs` names {odd[0]!r}, and the denoisers are {', '.join(modules)}")
    trial = Trial(pipe, modules)
    try:
        output = trial.run(call, steps)
    except Exception as error:  # the pipeline may be anybody's code
        raise EcadError(
            f"{name}: {type(pipe).__name__} failed to make an image: {type(error).__name__}: {first_line(error)}; if "
            'it needs further arguments, describe the pipeline in a .json file: files of images under "images", others '
            'under "call" (docs/your-own-model.md)'
        ) from error
    ran = {part: seen for part, seen in trial.seen.items() if seen.arguments is not None}
    if len(ran) < len(modules):
        idle = next(part for part in modules if part not in ran)
        raise EcadError(f"{name}: {type(pipe).__name__} runs its {idle} in none of {steps} steps; describe more steps")
    height, width = pictures_of(output).shape[1:3]
    frames = frames_of(output)
    sites: dict[str, Sequence[tuple[str, str]]] = {}
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    runs: list[dict[str, int]] = []
    for part, seen in ran.items():
        arguments = seen.arguments or {}
        found, kept = _measure(name, part, modules[part], arguments, macs.get(part))
        first, last = seen.range
        passes = max(1, round(len(seen.rows) / (last - first)))
        per_number = floating_dtype(modules[part]).itemsize
        layers, attention = passes * found.layers, passes * found.attention
        sites[part] = found.sites
        parts.append((layers, attention, passes * kept // per_number))
        runs.append({"sites": len(found.sites), "first": first, "last": last})
        runs[-1] |= {"layers": int(layers[-1]), "attention": int(attention[-1])}
    measured: dict[str, object] = {
        "sites": [list(site) for site in joint_sites(sites)],
        **{
            key: [int(value) for values in parts for value in values[place][:-1]] + [int(parts[0][place][-1])]
            for place, key in enumerate(("layers", "attention", "kept_numbers"))
        },
        "latents": _common_latents([list((seen.arguments or {}).values()) for seen in ran.values()]),
    }
    if frames > 1:
        measured["frames"] = frames
    if len(runs) > 1 or (runs[0]["first"], runs[0]["last"]) != (0, trial.num_rows):
        measured["runs"] = {"rows": trial.num_rows, "denoisers": runs}
    return (height, width), measured


def _common_latents(inputs: Sequence[Sequence[object]]) -> list[int] | None:
    """The shape of the latents, if it is the same for all denoisers."""
    shapes = {latent_shape(one) for one in inputs}
    return list(shapes.pop()) if len(shapes) == 1 else None


def _measure(
    name: str, part: str, denoiser: torch.nn.Module, arguments: Mapping[str, object], macs: int | None
) -> tuple[Measured, np.ndarray]:
    """MACs of one forward and bytes of its outputs, on the meta device if the model allows it, which saves memory.

    Args:
        name: of the image generator.
        part: what the pipeline calls the denoiser.
        denoiser, arguments: of the forward.
        macs: of the forward, if they are known: then the denoiser is one site.
    """
    if macs is not None:
        counted = Measured(DENOISER_SITES, np.array([macs, 0]), np.array([0, 0]))
        return counted, output_sizes(denoiser, whole(denoiser), (), arguments)
    with suppress(Exception):  # some models need the values of tensors, which meta tensors do not have
        twin, shapes = on_meta(denoiser), as_meta(arguments)
        return measure(twin, shapes), output_sizes(twin, discover(twin), (), shapes)
    try:
        return measure(denoiser, arguments), output_sizes(denoiser, discover(denoiser), (), arguments)
    except EcadError as error:
        raise EcadError(
            f"{name}: the MACs of {type(denoiser).__name__} cannot be counted: {first_line(error)}; say how many a "
            f'forward takes in a .json file: "macs": {{"{part}": ...}} (docs/your-own-model.md)'
        ) from error
