"""Prompts: reading them from files."""

from ecad.prompts.files import Prompt, read_prompts

__all__ = ["Prompt", "read_prompts"]
