"""Descriptions of pipelines that have no registered name. Nothing here needs torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveInt, ValidationError

from ecad.errors import EcadError
from ecad.utils.files import parse_json


class Adapter(BaseModel):
    """A LoRA.

    Args:
        weights: hub id, or file or folder relative to the description.
        scale: its strength.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    weights: str = Field(min_length=1)
    scale: float = 1.0


class Description(BaseModel):
    """The description of a pipeline in a `.json` file. All fields but the first default to the pipeline's own values.

    Args:
        pipeline: hub id, or folder relative to the file.
        steps: number of denoising steps.
        guidance_scale: strength of the prompt.
        height, width: size of an image in pixels.
        dtype: precision of the weights; by default float32 on a CPU and bfloat16 on an accelerator.
        call: further keyword arguments of the pipeline's call.
        pipeline_class: name of the pipeline's class in diffusers (`class` in the file), such as an image-to-image one;
            by default the class that the pipeline was saved with.
        quantization_config: component of the pipeline -> how it is quantised, as in a quantised model's config.json.
        adapters: LoRAs, with their scales.
        macs: denoiser of the pipeline -> multiply-accumulates of one forward, where they cannot be counted; it is one
            site then.
        images: argument of the pipeline's call -> file of an image, or a list of files; relative to the description.
    """

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    pipeline: str = Field(pattern=r"\S")
    steps: PositiveInt | None = None
    guidance_scale: float | None = Field(default=None, ge=0)
    height: PositiveInt | None = None
    width: PositiveInt | None = None
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    call: dict[str, JsonValue] = {}
    pipeline_class: str | None = Field(default=None, alias="class", min_length=1)
    images: dict[str, str | list[str]] = {}
    quantization_config: dict[str, dict[str, JsonValue]] = {}
    adapters: list[Adapter] = []
    macs: dict[str, PositiveInt] = {}


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
        is_place = _is_dir(path) or (name.count("/") == 1 and not path.is_absolute())
        return Description(pipeline=name) if is_place else None
    try:
        document = parse_json(path.read_bytes())
        json.dumps(document, allow_nan=False, ensure_ascii=False).encode()  # its values become part of keys
        found = Description.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        fields = ", ".join(field.alias or key for key, field in Description.model_fields.items())
        reason = f"no such field; the fields are {fields}" if first["type"] == "extra_forbidden" else first["msg"]
        raise EcadError(f"{name}: not a description of a pipeline: {where}: {reason}") from None
    except (OSError, ValueError) as error:
        raise EcadError(f"{name}: cannot read this description of a pipeline: {error}") from error
    local = path.parent / found.pipeline
    adapters = [
        adapter.model_copy(update={"weights": str(file)})
        if (file := path.parent / adapter.weights).exists()
        else adapter
        for adapter in found.adapters
    ]
    images = {
        name: [str(path.parent / file) for file in files] if isinstance(files, list) else str(path.parent / files)
        for name, files in found.images.items()
    }
    place = str(local) if _is_dir(local) else found.pipeline
    return found.model_copy(update={"pipeline": place, "images": images, "adapters": adapters})


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long for the disk
        return False
