"""How far apart two sets of images are: Fréchet (FID) and kernel (KID) distances of their features."""

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

# Below this many images Inception's 2048 x 2048 covariance has not its full rank.
FEW_IMAGES = 2048


@dataclass(frozen=True, eq=False)
class Statistics:
    """What FID and KID need of a set of images.

    Args:
        mean: float64 (width,).
        covariance: float64 (width, width).
        features: float32 (n, width), which KID needs; None if they are not known.
        count: how many images; None if it is not known.
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
            raise EcadError(f"FID needs a covariance: expected at least 2 images, found {len(features)}")
        wide = features.astype(np.float64)
        return cls(wide.mean(axis=0), np.atleast_2d(np.cov(wide, rowvar=False)), features, len(features))


def fid(one: Statistics, other: Statistics) -> float:
    """The Fréchet distance of two Gaussians (Heusel et al., arXiv 1706.08500).

    The trace of the root of a product of covariances is found from eigenvalues of symmetric matrices, which stays exact
    where there are fewer images than features; the literature's matrix root is not defined there.

    Raises:
        EcadError: the features are of different width.

    >>> fid(Statistics.of(np.array([[0.0], [2.0]])), Statistics.of(np.array([[3.0], [5.0]])))
    9.0
    """
    if one.mean.shape != other.mean.shape:
        raise EcadError(
            f"features of another network: expected {one.mean.shape[0]} of an image, found {other.mean.shape[0]} in "
            "the reference; make both with one `model_name`"
        )
    values, vectors = np.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other.covariance @ root), 0)).sum()
    apart = ((one.mean - other.mean) ** 2).sum()
    return float(apart + np.trace(one.covariance) + np.trace(other.covariance) - 2 * shared)


def kid(one: Statistics, other: Statistics) -> float | None:
    """The kernel distance (Bińkowski et al., arXiv 1801.01401), as clean-fid samples it; the same for the same sets.

    Returns:
        None if the features of one set are not known.
    """
    if one.features is None or other.features is None:
        return None
    with benchmark_extra("KID"):
        from cleanfid.fid import kernel_distance
    with _numpy_seed(0):
        return float(kernel_distance(other.features.astype(np.float64), one.features.astype(np.float64)))


def load_statistics(source: str, model_name: str = "inception_v3") -> Statistics:
    """Statistics that someone else has made.

    Args:
        source: an `.npz` file with `mu` and `sigma` (and `feats`, for KID); or clean-fid's name of a data set, `NAME`
            for statistics that the user has made with it, `NAME/SPLIT/RESOLUTION` for those that its authors publish.
        model_name: the network that they must be of, for clean-fid's names.

    Raises:
        EcadError: there are none, or they are malformed.

    >>> load_statistics("missing.npz")
    Traceback (most recent call last):
    ecad.errors.EcadError: missing.npz: expected statistics (mu and sigma) there, found no such file
    """
    if source.endswith(".npz"):
        if not Path(source).is_file():
            raise EcadError(f"{source}: expected statistics (mu and sigma) there, found no such file")
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
            f"reference statistics {source!r}: expected clean-fid to have or download them, but: {error}; give a "
            "file .npz, or the images themselves as `ref_dir` (a torn download is in clean-fid's own folder `stats`)"
        ) from error
    return _checked(source, mean, covariance, None)


def _read_npz(source: str | os.PathLike[str]) -> Statistics:
    try:
        with np.load(source, allow_pickle=False) as file:
            return _checked(source, file["mu"], file["sigma"], file.get("feats"))
    except EcadError:
        raise
    except Exception as error:  # zipfile, zlib, tokenize and numpy each have their own
        raise EcadError(f"{source}: expected statistics (mu and sigma) there, but: {error}") from error


def _checked(
    source: str | os.PathLike[str], mean: np.ndarray, covariance: np.ndarray, features: np.ndarray | None
) -> Statistics:
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise EcadError(f"{source}: expected mu (n,) and sigma (n, n), found {mean.shape} and {covariance.shape}")
    if features is not None and features.shape[1:] != mean.shape:
        raise EcadError(f"{source}: expected feats (images, {len(mean)}), found {features.shape}")
    for name, values in (("mu", mean), ("sigma", covariance), ("feats", features)):
        if values is not None and not (np.issubdtype(values.dtype, np.floating) and np.isfinite(values).all()):
            raise EcadError(f"{source}: {name}: expected finite numbers, found others")
    return Statistics(mean, covariance, features, None if features is None else len(features))


@contextlib.contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """clean-fid draws from numpy's global state: leave it as it was."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
