"""How good images are: scorers behind one small interface."""

from ecad.quality.fidelity import psnr
from ecad.quality.interval import mean_interval
from ecad.quality.judge import Judge

__all__ = ["Judge", "mean_interval", "psnr"]
