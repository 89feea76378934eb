"""Image generators: diffusers pipelines with fixed settings that turn text embeddings and seeds into images."""

from ecad.image_generators.generator import ImageGenerator
from ecad.image_generators.registry import found_everywhere, get_architecture, get_image_generator, image_generators
from ecad.prompts.embeds import PromptEmbeds

__all__ = [
    "ImageGenerator",
    "PromptEmbeds",
    "found_everywhere",
    "get_architecture",
    "get_image_generator",
    "image_generators",
]
