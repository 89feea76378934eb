"""A front of schedules from a handful of images, without a search."""

from ecad.calibration.calibrate import calibrate

__all__ = ["calibrate"]
