"""What PEFT adapters (LoRA) are active in a model."""

from __future__ import annotations

from typing import Any


def active_adapters(module: Any) -> list[list[Any]]:
    """The adapters that a model runs with, as JSON values: kind, rank and scales of each.

    Args:
        module: a model.

    Returns:
        one entry per adapter; empty if there is none, if all are switched off, or if peft is not used.
    """
    configs = getattr(module, "peft_config", None) or {}
    layers = [part for part in module.modules() if hasattr(part, "scaling")] if configs else []
    found = []
    for name, config in configs.items():
        scales = {
            float(layer.scaling[name])
            for layer in layers
            if name in layer.scaling and name in layer.active_adapters and not layer.disable_adapters
        }
        if scales:
            found.append([type(config).__name__, getattr(config, "r", None), sorted(scales)])
    return found
