"""`ecad.calibrate`: a Pareto front of schedules from a handful of images, without a search."""
