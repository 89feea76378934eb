"""A finished study."""

from finished_study import finished, study_folder

__all__ = ["finished", "study_folder"]
