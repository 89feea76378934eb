"""What a schedule was made for, and how good it was there: kept among its attributes, checked where it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, FiniteFloat, JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ecad.schedules import json_values as plain

# Among the attributes; under the second, what was resampled.
KEY, RESAMPLED = "provenance", "resampled_from"
_CONFIG = ConfigDict(extra="forbid")
_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=_CONFIG)
class Interval:
    """A mean over held-out images with the ends of its 95% interval; larger is better."""

    mean: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat


@dataclass(frozen=True, config=_CONFIG)
class Provenance:
    """Where a schedule comes from.

    Args:
        denoiser: the denoiser's class.
        layout: hex digits that differ where the denoiser's class or sites differ.
        configuration: hex digits that differ where the denoiser's configuration does: a variant of the model.
        model: the image generator or model id.
        weights: hex digits that differ where the denoiser's weights do.
        sampler: the scheduler's class.
        latents: shape of the denoiser's first input without its batch: the resolution.
        height, width: of an image, in pixels.
        guidance_scale: strength of the prompt.
        search: mode, seed, quality, images made, ...
        versions: package -> version.
        held_out: scorer -> mean on prompts and seeds that the search did not see.
        held_out_images: how many images these are means of.
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

    def to_json(self) -> dict[str, Any]:
        """As it stands in a schedule file, under `attributes.provenance`."""
        found: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return found


def provenance_of(attributes: Mapping[str, Any]) -> Provenance | None:
    """What a schedule's attributes say of its provenance; None if they say nothing.

    Raises:
        ScheduleError: they say something else than `Provenance` holds.

    >>> provenance_of({"provenance": {"denoiser": "DiT", "layout": "12ab"}})
    Traceback (most recent call last):
    ecad.errors.ScheduleError: attributes.provenance.configuration: not a provenance: expected Field required
    >>> provenance_of({}) is None
    True
    """
    if KEY not in attributes:
        return None
    try:
        return _ADAPTER.validate_python(plain.thaw(attributes[KEY]))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise plain.fault("not a provenance", ("attributes", KEY, *first["loc"]), expected=first["msg"]) from None


def made_for(attributes: Mapping[str, Any]) -> tuple[Provenance | None, int | None]:
    """What a schedule was made for, and the number of steps it had then if it was resampled since.

    Raises:
        ScheduleError: as `provenance_of` does.
    """
    resampled = attributes.get(RESAMPLED)
    if isinstance(resampled, Mapping) and KEY in resampled:
        return provenance_of(resampled), resampled.get("steps")
    return provenance_of(attributes), None


_ADAPTER = TypeAdapter(Provenance)
