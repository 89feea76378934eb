"""Custom nodes for ComfyUI: apply a cache schedule to a MODEL, and record one. docs/comfyui.md shows how to install."""

from ecad.integrations.comfyui.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
