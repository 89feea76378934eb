"""Rebuild the built-in models from the npm packages: data, VAE, judge, denoisers, export, evaluation.

python tools/build.py build        # about eight hours on one core; resumes an interrupted run
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
STAGES = (
    ("train_vae.py",),
    ("train_vae.py", "--frozen-encoder"),
    ("train_judge.py",),
    ("train_denoiser.py",),
    ("train_flux.py",),
    ("train_flux.py", "--distil"),
    ("export.py",),
    ("train_video.py",),
    ("export.py", "--video"),
    ("evaluate.py",),
    ("evaluate.py", "--generator=EmojiFluxImageGenerator"),
    ("evaluate_video.py",),
)


def build(folder: Path) -> None:
    """Run every stage that has not run yet, each in its own process for a clean state."""
    folder.mkdir(parents=True, exist_ok=True)
    for script, *flags in STAGES:
        done = folder / f"{script}{''.join(flags)}.done"
        if not done.exists():
            print(f"== {script} {' '.join(flags)}", flush=True)
            subprocess.run([sys.executable, HERE / script, folder, *flags], check=True)
            done.touch()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    build(parser.parse_args().folder)
