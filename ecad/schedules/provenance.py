"""The provenance of a schedule: what it was made for and its scores there, among its attributes, checked on use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, FiniteFloat, JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ecad.schedules import json_values as plain

# Keys of the attributes; the second holds the provenance of a schedule before it was resampled.
KEY, RESAMPLED = "provenance", "resampled_from"
# Fields that hold one value per denoiser, joined by the separator, where a pipeline has several.
OF_DENOISER, SEPARATOR = ("denoiser", "layout", "configuration"), " + "
_CONFIG = ConfigDict(extra="forbid")
_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=_CONFIG)
class Interval:
    """A mean over held-out images, and the ends of its 95% confidence interval; larger is better."""

    mean: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat


@dataclass(frozen=True, config=_CONFIG)
class Provenance:
    """The model and settings that a schedule was searched on, and its scores.

    Args:
        denoiser: class of the denoiser.
        layout: fingerprint of the denoiser's class and sites.
        configuration: fingerprint of the denoiser's configuration, which differs between variants of a model.
        model: image generator or model id.
        weights: fingerprint of the denoiser's weights.
        sampler: class of the scheduler.
        latents: shape of the denoiser's first input without its batch axis, which tells the resolution.
        height, width: of an image, in pixels.
        guidance_scale: strength of the prompt.
        search: facts about the search: mode, seed, quality, number of images, ...
        versions: package -> version.
        held_out: scorer -> mean score on prompts and seeds that the search did not see.
        held_out_images: number of images in these means.
    """

    denoiser: str
    layout: str
    configuration: str
    model: str = ""
    weights: str | None = None
    sampler: str | None = None
    latents: tuple[_Count, ...] | None = None
    height: _Count | None = None
    width: _Count | None = None
    guidance_scale: FiniteFloat | None = None
    search: Mapping[str, JsonValue] = Field(default_factory=dict)
    versions: Mapping[str, str] = Field(default_factory=dict)
    held_out: Mapping[str, Interval] = Field(default_factory=dict)
    held_out_images: _Count = 0

    def to_json(self) -> dict[str, object]:
        """The JSON value in a schedule file, under `attributes.provenance`."""
        found: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return found


def provenance_of(attributes: Mapping[str, object]) -> Provenance | None:
    """Read the provenance from a schedule's attributes.

    Args:
        attributes: those of the schedule.

    Returns:
        the provenance, or None if the attributes have none.

    Raises:
        ScheduleError: the provenance is malformed.

    >>> provenance_of({"provenance": {"denoiser": "DiT", "layout": "12ab"}})
    Traceback (most recent call last):
    ecad.errors.ScheduleError: attributes.provenance.configuration: malformed provenance: Field required
    >>> provenance_of({}) is None
    True
    """
    if KEY not in attributes:
        return None
    try:
        return _ADAPTER.validate_python(plain.thaw(attributes[KEY]))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise plain.fault(f"malformed provenance: {first['msg']}", ("attributes", KEY, *first["loc"])) from None


def made_for(attributes: Mapping[str, object]) -> tuple[Provenance | None, int | None]:
    """Read what a schedule was made for, also if it was resampled since.

    Args:
        attributes: those of the schedule.

    Returns:
        the provenance, or None; and the number of steps before the schedule was resampled, or None.

    Raises:
        ScheduleError: the provenance is malformed.
    """
    resampled = attributes.get(RESAMPLED)
    if isinstance(resampled, Mapping) and KEY in resampled:
        return provenance_of(resampled), resampled.get("steps")
    return provenance_of(attributes), None


_ADAPTER = TypeAdapter(Provenance)
