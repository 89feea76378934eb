"""The provenance of schedules that are made for an image generator."""

from __future__ import annotations

from ecad.cost.architectures import Architecture
from ecad.cost.inputs import forward_inputs
from ecad.image_generators.generator import ImageGenerator
from ecad.runtime.compatibility import configuration_of, latent_shape, layout_of
from ecad.schedules.provenance import SEPARATOR, Provenance
from ecad.sites.discovery import denoisers, discover
from ecad.utils.versions import versions


def provenance_for(generator: ImageGenerator) -> Provenance:
    """The provenance of schedules made for a generator at its own settings, without scores."""
    modules, architecture = list(denoisers(generator.pipe).values()), generator.architecture
    return Provenance(
        denoiser=SEPARATOR.join(type(module).__name__ for module in modules),
        layout=SEPARATOR.join(layout_of(module, discover(module)) for module in modules),
        configuration=SEPARATOR.join(configuration_of(module) for module in modules),
        model=generator.name,
        weights=generator.fingerprint(),
        sampler=type(generator.pipe.scheduler).__name__,
        latents=_latents(architecture),
        height=architecture.height,
        width=architecture.width,
        guidance_scale=generator.guidance_scale,
        versions=versions(("diffusers", "torch")),
    )


def _latents(architecture: Architecture) -> tuple[int, ...] | None:
    if architecture.measured is not None:
        latents = architecture.measured["latents"]
        return None if latents is None else tuple(latents)
    inputs = forward_inputs(architecture, architecture.height, architecture.width, architecture.text_tokens)
    return latent_shape(list(inputs.values()))
