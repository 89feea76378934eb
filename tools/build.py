"""Rebuild the built-in model from the npm packages: data, VAE, judge, denoiser, export, evaluation.

python tools/build.py build        # about four hours on two cores; the denoiser resumes where it was
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
STAGES = (("vae", "train_vae.py"), ("judge", "train_judge.py"))


def run(script: str, folder: Path) -> None:
    """Run one stage in a process of its own, so that each starts from a clean state."""
    print(f"== {script}", flush=True)
    subprocess.run([sys.executable, HERE / script, folder], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for result, script in STAGES:
        if not (folder / result).exists():
            run(script, folder)
    for script in ("train_denoiser.py", "export.py", "evaluate.py"):
        run(script, folder)
