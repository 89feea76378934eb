"""Studies and folders of images that commands read."""

from finished_study import finished, study_folder
from image_folders import images

__all__ = ["finished", "images", "study_folder"]
