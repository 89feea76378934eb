"""Studies and folders of images that commands read."""

from few_steps import few_steps
from finished_study import finished, study_folder
from image_folders import images

__all__ = ["few_steps", "finished", "images", "study_folder"]
