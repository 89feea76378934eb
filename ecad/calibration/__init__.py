"""A front of schedules from a handful of images, without a search: `ecad.calibrate`."""
