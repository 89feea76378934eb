"""Features of folders of images, cached by the content of the images."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ecad.builtin import JUDGE_FOLDER
from ecad.errors import EcadError
from ecad.images.files import Images, content_digest, read_images
from ecad.utils.batching import AdaptiveBatches
from ecad.utils.extras import benchmark_extra
from ecad.utils.files import write_atomic
from ecad.utils.fingerprints import part_fingerprint, weights_fingerprint

CHUNK = 256
_BATCH = 32


@dataclass(frozen=True)
class FeatureExtractor:
    """A network that extracts features of images.

    Args:
        name: identifies the network, its weights and its preprocessing; part of the cache's key.
        extract: images, each uint8 (height, width, 3) -> float32 (n, width).
    """

    name: str
    extract: Callable[[Images], np.ndarray]


def get_feature_extractor(
    model_name: str = "inception_v3", weights: str | os.PathLike[str] | None = None, device: str = "auto"
) -> FeatureExtractor:
    """Load a feature extractor.

    Args:
        model_name: `inception_v3`, as FID is defined; `judge`, the built-in one; or a CLIPModel: `clip_vit_b_32`, a
            name such as `ViT-L/14`, a hub id or a local folder.
        weights: a local copy of Inception's file, or the folder of a CLIPModel.
        device: `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        EcadError: the weights are not found, or clean-fid is not installed.
    """
    from ecad.utils.device import choose_device

    if model_name == "inception_v3":
        return _inception(None if weights is None else Path(weights), choose_device(device))
    from ecad.quality.clip import Clip

    named = {"judge": os.fspath(JUDGE_FOLDER), "clip_vit_b_32": "ViT-B/32"}
    clip = Clip(weights or named.get(model_name, model_name), choose_device(device))
    # FID on CLIP features takes them unnormalized (Kynkäänniemi et al., arXiv 2203.06026).
    read = part_fingerprint(clip.processor)[:12]
    return FeatureExtractor(f"{model_name} {weights_fingerprint(clip.model, digits=12)} {read}", clip.features)


def folder_features(
    files: Sequence[Path],
    extractor: FeatureExtractor,
    cache: Path,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> np.ndarray:
    """Features of images, from the cache where they are there; an interrupted run resumes.

    Args:
        files: the images.
        extractor: extracts the features.
        cache: folder of the cache. Each file holds the features of up to 256 images, and its name depends on the
            extractor and on the bytes of each image.
        progress: wraps the iterable of chunks, for instance in a progress bar.

    Returns:
        float32 (images, width), in the order of `files`.

    Raises:
        EcadError: an image cannot be read.
    """
    return np.concatenate(
        [_chunk(files[start : start + CHUNK], extractor, cache) for start in progress(range(0, len(files), CHUNK))]
    )


def default_cache() -> Path:
    """The default cache: `ecad/features` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ecad" / "features"


def _chunk(files: Sequence[Path], extractor: FeatureExtractor, cache: Path) -> np.ndarray:
    digest = hashlib.sha256(extractor.name.encode())
    for file in files:
        digest.update(content_digest(file))
    kept = cache / f"{digest.hexdigest()}.npy"
    try:
        features = np.load(kept, allow_pickle=False)
        if features.ndim == 2 and len(features) == len(files) and np.isfinite(features).all():
            return np.asarray(features, dtype=np.float32)
    except Exception:  # numpy's parsers raise many kinds
        pass  # missing or damaged: extracted again
    images = read_images(files)
    extract = AdaptiveBatches("images to extract features from", limit=_BATCH).run
    parts = extract(lambda places: extractor.extract([images[i] for i in places]), len(images))
    features = np.concatenate(parts).astype(np.float32)
    content = io.BytesIO()
    np.save(content, features, allow_pickle=False)
    write_atomic(kept, content.getvalue())
    return features


def _inception(weights: Path | None, device: str) -> FeatureExtractor:
    """Inception as FID was first defined, with clean-fid's resizing (Parmar et al., arXiv 2104.11222)."""
    with benchmark_extra("FID"):
        from cleanfid.downloads_helper import inception_url
        from cleanfid.inception_torchscript import InceptionV3W
        from cleanfid.resize import build_resizer

    name = Path(inception_url).name
    file = weights or Path(torch.hub.get_dir(), "checkpoints", name)
    file = file / name if file.is_dir() else file
    if file.name != name:
        raise EcadError(f"{file}: expected Inception's weights in a file named {name}, or the folder of one")
    try:
        if weights is None and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(inception_url, str(file), progress=False)
        with warnings.catch_warnings():
            # The published file is TorchScript, whose loader warns of its own age.
            warnings.simplefilter("ignore", FutureWarning)
            network: Any = InceptionV3W(str(file.parent), download=False).to(device).eval()
    except (OSError, RuntimeError, ValueError) as error:
        raise EcadError(
            f"inception_v3: cannot load its weights from {file} or {inception_url}: {str(error).splitlines()[0]}; "
            "give a downloaded copy as `weights`"
        ) from error
    resize = build_resizer("clean")

    @torch.no_grad()
    def extract(images: Images) -> np.ndarray:
        pixels = np.stack([resize(image) for image in images]).transpose(0, 3, 1, 2)
        return np.asarray(network(torch.from_numpy(pixels).to(device)).float().cpu())

    return FeatureExtractor(f"inception_v3 {weights_fingerprint(network, digits=12)}", extract)
