"""Studies and folders of images that commands read, and models that take less time."""

from few_steps import few_steps
from finished_study import finished, study_folder
from image_folders import images
from measured_once import measured_once
from short_flux import short_flux

__all__ = ["few_steps", "finished", "images", "measured_once", "short_flux", "study_folder"]
