"""Prompts: prompt files, stored embeddings, and the names of image files."""

from ecad.prompts.files import FileMode, Prompt, PromptFile, broken_captions, read_prompts
from ecad.prompts.names import NamingMode, image_stem, match_images, prompt_key, prompt_stem

__all__ = [
    "FileMode",
    "NamingMode",
    "Prompt",
    "PromptFile",
    "broken_captions",
    "image_stem",
    "match_images",
    "prompt_key",
    "prompt_stem",
    "read_prompts",
]
