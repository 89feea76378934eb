"""Distance between two sets of images: Fréchet (FID) and kernel (KID) distance of their features."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecad.errors import EcadError
from ecad.utils.extras import benchmark_extra

# With fewer images Inception's 2048 x 2048 covariance is rank deficient.
FEW_IMAGES = 2048


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics of the features of a set of images, for FID and KID.

    Args:
        mean: float64 (width,).
        covariance: float64 (width, width).
        features: float32 (n, width), for KID; None if unknown.
        count: number of images; None if unknown.
    """

    mean: np.ndarray
    covariance: np.ndarray
    features: np.ndarray | None = None
    count: int | None = None

    @classmethod
    def of(cls, features: np.ndarray) -> Statistics:
        """The statistics of features, float (n, width); raises EcadError for fewer than two images.

        >>> Statistics.of(np.array([[0.0], [2.0]])).covariance
        array([[2.]])
        """
        if len(features) < 2:
            raise EcadError(f"FID needs at least 2 images for a covariance, found {len(features)}")
        wide = features.astype(np.float64)
        return cls(wide.mean(axis=0), np.atleast_2d(np.cov(wide, rowvar=False)), features, len(features))


def fid(one: Statistics, other: Statistics) -> float:
    """The Fréchet distance of two Gaussians (Heusel et al., arXiv 1706.08500).

    The trace of the square root of the covariances' product comes from eigenvalues of symmetric matrices. This stays
    exact with fewer images than features, where the usual matrix square root is not defined.

    Raises:
        EcadError: the features have different widths.

    >>> fid(Statistics.of(np.array([[0.0], [2.0]])), Statistics.of(np.array([[3.0], [5.0]])))
    9.0
    """
    if one.mean.shape != other.mean.shape:
        raise EcadError(
            f"the images have {one.mean.shape[0]} features each, the reference has {other.mean.shape[0]}: they come "
            "from different networks; use the same `model_name` for both"
        )
    values, vectors = np.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other.covariance @ root), 0)).sum()
    apart = ((one.mean - other.mean) ** 2).sum()
    return float(apart + np.trace(one.covariance) + np.trace(other.covariance) - 2 * shared)


def kid(one: Statistics, other: Statistics) -> float | None:
    """The kernel distance (Bińkowski et al., arXiv 1801.01401), with clean-fid's sampling and a fixed random seed.

    Returns:
        the distance; None if the features of one set are unknown.
    """
    if one.features is None or other.features is None:
        return None
    with benchmark_extra("KID"):
        from cleanfid.fid import kernel_distance
    with _numpy_seed(0):
        return float(kernel_distance(other.features.astype(np.float64), one.features.astype(np.float64)))


def load_statistics(source: str, model_name: str = "inception_v3") -> Statistics:
    """Read precomputed statistics.

    Args:
        source: an `.npz` file with `mu` and `sigma` (and `feats`, for KID), or the name of a data set in clean-fid:
            `NAME` for statistics that you made with it, `NAME/SPLIT/RESOLUTION` for published ones.
        model_name: the network of the features, for names in clean-fid.

    Raises:
        EcadError: there are no such statistics, or they are malformed.

    >>> load_statistics("missing.npz")
    Traceback (most recent call last):
    ecad.errors.EcadError: missing.npz: no such file; give an .npz file with the statistics mu and sigma
    """
    if source.endswith(".npz"):
        if not Path(source).is_file():
            raise EcadError(f"{source}: no such file; give an .npz file with the statistics mu and sigma")
        return _read_npz(source)
    name, *rest = source.split("/")
    if len(rest) not in (0, 2):
        raise EcadError(f"reference statistics {source!r}: expected a file .npz, NAME, or NAME/SPLIT/RESOLUTION")
    split, resolution = rest or ("custom", "na")
    with benchmark_extra("FID"):
        from cleanfid.features import get_reference_statistics
    network = {"ViT-B/32": "clip_vit_b_32"}.get(model_name, model_name)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            mean, covariance = get_reference_statistics(name, resolution, "clean", network, split=split)
    except Exception as error:  # urllib, zipfile and numpy each have their own
        raise EcadError(
            f"reference statistics {source!r}: clean-fid neither has nor downloads them: {error}; give an .npz file, "
            "or the images themselves as `ref_dir` (a partial download is in clean-fid's own folder `stats`)"
        ) from error
    return _checked(source, mean, covariance, None)


def _read_npz(source: str | os.PathLike[str]) -> Statistics:
    try:
        with np.load(source, allow_pickle=False) as file:
            return _checked(source, file["mu"], file["sigma"], file.get("feats"))
    except EcadError:
        raise
    except Exception as error:  # zipfile, zlib, tokenize and numpy each have their own
        raise EcadError(f"{source}: cannot read the statistics mu and sigma: {error}") from error


def _checked(
    source: str | os.PathLike[str], mean: np.ndarray, covariance: np.ndarray, features: np.ndarray | None
) -> Statistics:
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise EcadError(f"{source}: expected mu (n,) and sigma (n, n), found {mean.shape} and {covariance.shape}")
    if features is not None and features.shape[1:] != mean.shape:
        raise EcadError(f"{source}: expected feats (images, {len(mean)}), found {features.shape}")
    for name, values in (("mu", mean), ("sigma", covariance), ("feats", features)):
        if values is not None and not (np.issubdtype(values.dtype, np.floating) and np.isfinite(values).all()):
            raise EcadError(f"{source}: {name} has values that are not finite numbers")
    return Statistics(mean, covariance, features, None if features is None else len(features))


@contextlib.contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Set numpy's global seed, which clean-fid draws from, and restore the state afterwards."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
