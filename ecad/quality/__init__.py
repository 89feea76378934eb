"""Image quality: scorers with one interface."""

from ecad.quality.clip import Judge
from ecad.quality.fidelity import psnr
from ecad.quality.interval import mean_interval
from ecad.quality.scorers import Scorer, get_scorer, scorer_names

__all__ = ["Judge", "Scorer", "get_scorer", "mean_interval", "psnr", "scorer_names"]
