"""The nodes: "Cache schedule" and "Record cache schedules"."""

from __future__ import annotations

import re
from pathlib import Path

from ecad.errors import EcadError
from ecad.integrations.chosen import chosen_schedule
from ecad.integrations.comfyui.cached import cached_model
from ecad.integrations.comfyui.model import Model
from ecad.integrations.comfyui.recording import recorded_model

FOLDER = "ecad"
_SPEEDUP = {"default": 2.0, "min": 1.0, "max": 20.0, "step": 0.05, "tooltip": "Of a front: how many times fewer calls."}


class CacheSchedule:
    """Runs a MODEL under a schedule of `models/ecad`."""

    CATEGORY = "model/caching"
    FUNCTION = "apply"
    RETURN_TYPES = ("MODEL",)
    DESCRIPTION = "Skips denoising steps as a cache schedule says and extrapolates the model's output there."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, object]:
        return {
            "required": {
                "model": ("MODEL",),
                "schedule": (_schedule_names(), {"tooltip": "A schedule or a front in models/ecad."}),
                "speedup": ("FLOAT", _SPEEDUP),
            }
        }

    @classmethod
    def IS_CHANGED(cls, schedule: str, **_: object) -> float:
        return _place(schedule).stat().st_mtime

    def apply(self, model: Model, schedule: str, speedup: float) -> tuple[Model]:
        return (cached_model(model, chosen_schedule(_place(schedule), speedup=speedup)),)


class RecordCacheSchedules:
    """Records what a MODEL gives each run into a front of `models/ecad`."""

    CATEGORY = "model/caching"
    FUNCTION = "record"
    RETURN_TYPES = ("MODEL",)
    DESCRIPTION = (
        "Computes every step and records the model's outputs. Each run at the same steps adds to the file: "
        "a front of schedules for this model, scheduler and number of steps."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, object]:
        return {"required": {"model": ("MODEL",), "name": ("STRING", {"default": "recorded"})}}

    def record(self, model: Model, name: str) -> tuple[Model]:
        if not re.fullmatch(r"[\w][\w .+-]*", name):
            raise EcadError(f"{name!r} is no name for a file: expected letters, digits, spaces, and any of . _ + -")
        return (recorded_model(model, _folder() / f"{name.removesuffix('.json')}.json"),)


def _folder() -> Path:
    import folder_paths  # ComfyUI's own

    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    return Path(folder_paths.get_folder_paths(FOLDER)[0])


def _schedule_names() -> list[str]:
    import folder_paths

    _folder().mkdir(parents=True, exist_ok=True)
    return [name for name in folder_paths.get_filename_list(FOLDER) if name.endswith(".json")]


def _place(schedule: str) -> Path:
    import folder_paths

    _folder()
    return Path(folder_paths.get_full_path_or_raise(FOLDER, schedule))


NODE_CLASS_MAPPINGS = {"EcadCacheSchedule": CacheSchedule, "EcadRecordCacheSchedules": RecordCacheSchedules}
NODE_DISPLAY_NAME_MAPPINGS = {
    "EcadCacheSchedule": "Cache schedule (ecad)",
    "EcadRecordCacheSchedules": "Record cache schedules (ecad)",
}
