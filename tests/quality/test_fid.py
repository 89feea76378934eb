"""FID and KID against a direct computation, on features of a real trained network (the judge's image tower)."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import linalg

from ecad.errors import EcadError
from ecad.quality.features import CHUNK, FeatureExtractor, folder_features, get_feature_extractor
from ecad.quality.fid import Statistics, fid, kid, load_statistics


@pytest.fixture(scope="module")
def judge() -> FeatureExtractor:
    return get_feature_extractor("judge", device="cpu")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Smooth random pictures: the judge tells them apart, and noise changes what it sees."""
    small = np.random.default_rng(0).integers(0, 256, (240, 4, 4, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC)) for image in small])


def noisy(images: np.ndarray, level: int) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, level, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def direct_fid(one: np.ndarray, other: np.ndarray) -> float:
    """Heusel et al., equation 6, with scipy's matrix root."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    covariances = [np.cov(features, rowvar=False) for features in (one, other)]
    root = linalg.sqrtm(covariances[0] @ covariances[1])
    apart = np.linalg.norm(one.mean(axis=0) - other.mean(axis=0)) ** 2
    return float(apart + np.trace(covariances[0] + covariances[1] - 2 * np.real(root)))


def direct_kid(one: np.ndarray, other: np.ndarray) -> float:
    """The unbiased estimate of the squared MMD with the kernel (x.y / d + 1)^3 over all pairs."""

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    n, m = len(one), len(other)
    within = [(kernel(f, f).sum() - np.trace(kernel(f, f))) / (len(f) * (len(f) - 1)) for f in (one, other)]
    return float(sum(within) - 2 * kernel(one, other).sum() / (n * m))


def test_fid_is_the_direct_computation_and_clean_fids(judge: FeatureExtractor, images: np.ndarray) -> None:
    from cleanfid.fid import frechet_distance

    one, other = judge.extract(images[:120]), judge.extract(noisy(images[120:], 40))
    found = fid(Statistics.of(one), Statistics.of(other))
    assert found == pytest.approx(direct_fid(one, other), rel=1e-6)
    a, b = Statistics.of(one), Statistics.of(other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert found == pytest.approx(frechet_distance(a.mean, a.covariance, b.mean, b.covariance), rel=1e-6)


def test_both_distances_grow_with_noise(judge: FeatureExtractor, images: np.ndarray) -> None:
    few = images[:80]
    reference = Statistics.of(judge.extract(few))
    distances = [
        (fid(found, reference), kid(found, reference))
        for found in (reference, *(Statistics.of(judge.extract(noisy(few, level))) for level in (10, 30, 90)))
    ]
    for found in zip(*distances, strict=True):
        assert list(found) == sorted(set(found))
        assert found[-1] > 0
    assert distances[0][0] == pytest.approx(0, abs=1e-6 * distances[-1][0])


def test_fewer_images_than_features_still_have_a_distance(judge: FeatureExtractor, images: np.ndarray) -> None:
    one, other = Statistics.of(judge.extract(images[:4])), Statistics.of(judge.extract(images[4:7]))
    assert fid(one, other) == pytest.approx(fid(other, one), rel=1e-6)
    assert fid(one, one) == pytest.approx(0, abs=1e-6 * np.trace(one.covariance))
    assert fid(one, other) > 0


def test_kid_is_the_unbiased_estimate() -> None:
    # Sets below clean-fid's subset size are used whole, so that sampling plays no part.
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(50, 6)), rng.normal(0.3, 1, size=(50, 6))
    before = np.random.get_state()[1].copy()
    found = kid(Statistics.of(one), Statistics.of(other))
    assert found == pytest.approx(direct_kid(one, other), rel=1e-9)
    assert found == kid(Statistics.of(one), Statistics.of(other))
    assert (np.random.get_state()[1] == before).all()
    assert kid(Statistics.of(one), Statistics(one[0], np.eye(6))) is None


@pytest.mark.parametrize("features", [np.zeros((0, 3)), np.zeros((1, 3))])
def test_one_image_has_no_covariance(features: np.ndarray) -> None:
    with pytest.raises(EcadError, match="needs at least 2 images"):
        Statistics.of(features)


def test_statistics_of_another_network_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(EcadError, match=r"have 4 features each, the reference has 5.*`model_name`"):
        fid(Statistics.of(rng.normal(size=(9, 4))), Statistics.of(rng.normal(size=(9, 5))))


class Counted:
    """An extractor that counts the images it was given."""

    def __init__(self, name: str = "counted") -> None:
        self.images = 0
        self.extractor = FeatureExtractor(name, self)

    def __call__(self, images: list[np.ndarray]) -> np.ndarray:
        self.images += len(images)
        return np.array([[image.mean(), image.std()] for image in images], dtype=np.float32)


def write(folder: Path, values: range) -> list[Path]:
    folder.mkdir()
    for value in values:
        Image.fromarray(np.full((2, 2, 3), value % 251, np.uint8) + np.uint8(value // 251)).save(
            folder / f"{value:04d}.png"
        )
    return sorted(folder.iterdir())


def test_features_are_kept_by_content(tmp_path: Path) -> None:
    counted, cache = Counted(), tmp_path / "cache"
    files = write(tmp_path / "a", range(CHUNK + 3))
    first = folder_features(files, counted.extractor, cache)
    assert len(first) == counted.images == CHUNK + 3
    assert (folder_features(files, counted.extractor, cache) == first).all()
    (tmp_path / "a").rename(tmp_path / "b")
    moved = sorted((tmp_path / "b").iterdir())
    assert (folder_features(moved, counted.extractor, cache) == first).all()
    assert counted.images == CHUNK + 3
    # Another picture under an old name: its chunk is made again, the other is not.
    Image.new("RGB", (2, 2), (255, 0, 0)).save(moved[-1])
    changed = folder_features(moved, counted.extractor, cache)
    assert counted.images == CHUNK + 6
    assert (changed[:-1] == first[:-1]).all()
    assert (changed[-1] != first[-1]).any()
    other = Counted("another network")
    folder_features(moved, other.extractor, cache)
    assert other.images == CHUNK + 3


def test_spoilt_features_are_made_again(tmp_path: Path) -> None:
    counted, cache = Counted(), tmp_path / "cache"
    files = write(tmp_path / "a", range(3))
    first = folder_features(files, counted.extractor, cache)
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    # The third is a header that numpy's own parser chokes on.
    for spoilt in (b"", whole[:20], whole.replace(b"}", b"("), whole[:-3], whole[:-4] + b"\0\0\xc0\x7f"):
        kept.write_bytes(spoilt)
        assert (folder_features(files, counted.extractor, cache) == first).all()
        assert kept.read_bytes() == whole


def test_statistics_from_a_file(tmp_path: Path) -> None:
    stats = Statistics.of(np.random.default_rng(0).normal(size=(9, 4)))
    np.savez(tmp_path / "plain.npz", mu=stats.mean, sigma=stats.covariance)
    np.savez(tmp_path / "more.npz", mu=stats.mean, sigma=stats.covariance, feats=stats.features)
    plain, more = (load_statistics(str(tmp_path / name)) for name in ("plain.npz", "more.npz"))
    assert (plain.mean == stats.mean).all()
    assert (plain.covariance == stats.covariance).all()
    assert (plain.count, more.count) == (None, 9)
    assert kid(more, stats) is not None


@pytest.mark.parametrize(
    ("name", "arrays", "told"),
    [
        ("a.npz", {"mu": np.zeros(3)}, "sigma"),
        ("a.npz", {"mu": np.zeros(3), "sigma": np.zeros((2, 2))}, r"sigma \(n, n\)"),
        ("a.npz", {"mu": np.array([None]), "sigma": np.zeros((1, 1))}, "pickle"),
        ("a.npz", {"mu": np.zeros(1), "sigma": np.array([[np.nan]])}, "sigma has values that are not finite"),
        ("a.npz", {"mu": np.array(["x"]), "sigma": np.zeros((1, 1))}, "mu has values that are not finite"),
        ("a.npz", {"mu": np.zeros(1), "sigma": np.zeros((1, 1)), "feats": np.zeros((3, 2))}, r"feats \(images, 1\)"),
        ("a/b", None, "NAME/SPLIT/RESOLUTION"),
    ],
)
def test_malformed_statistics_are_named(tmp_path: Path, name: str, arrays: dict | None, told: str) -> None:
    if arrays is not None:
        np.savez(tmp_path / name, **arrays)
    with pytest.raises(EcadError, match=told):
        load_statistics(str(tmp_path / name) if arrays is not None else name)


def test_torn_statistics_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.eye(3))
    content = (tmp_path / "a.npz").read_bytes()
    for torn in (content[:-9], content.replace(b"NUMPY", b"NUMPI"), content[:-60] + bytes(60)):
        (tmp_path / "a.npz").write_bytes(torn)
        with pytest.raises(EcadError, match=r"a\.npz: cannot read the statistics mu and sigma: "):
            load_statistics(str(tmp_path / "a.npz"))


class StandIn(torch.nn.Module):
    """A network in the form of the published Inception file, far smaller: 2,048 numbers of an image of 299 x 299."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 2048, 13, stride=143), torch.nn.AdaptiveAvgPool2d(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_inception_sees_images_at_its_own_size_and_range(tmp_path: Path, images: np.ndarray) -> None:
    network = StandIn()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network).save(tmp_path / "inception-2015-12-05.pt")
        extractor = get_feature_extractor("inception_v3", tmp_path, "cpu")
    wide = images[1, :40]
    found = extractor.extract([images[0], wide])
    assert (found.shape, found.dtype) == ((2, 2048), np.float32)
    for row, image in zip(found, (images[0], wide), strict=True):
        # Each channel resized as floating point numbers (clean-fid's point), then -1 to 1.
        channels = [
            Image.fromarray(image[..., c].astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC)
            for c in range(3)
        ]
        pixels = np.stack(channels).clip(0, 255)
        with torch.no_grad():
            expected = network(torch.from_numpy(pixels / 128 - 1)[None].float()).flatten()
        assert row == pytest.approx(expected.numpy(), abs=1e-5)


_OFFLINE = """
import socket

def refuse(*arguments, **options):
    raise SystemExit(f"the network was asked for {arguments}")

socket.socket.connect = socket.getaddrinfo = refuse
import cleanfid.features, cleanfid.fid, torchmetrics.functional.image
import ecad.quality.features, ecad.quality.fid, ecad.quality.image_reward
"""


def test_importing_asks_nobody_for_anything() -> None:
    done = subprocess.run([sys.executable, "-c", _OFFLINE], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torn = tmp_path / "inception-2015-12-05.pt"
    torn.write_bytes(b"torn")
    for weights in (torn, tmp_path):
        with pytest.raises(EcadError, match=r"inception_v3: cannot load its weights from .*`weights`") as error:
            get_feature_extractor("inception_v3", weights, "cpu")
        assert "\n" not in str(error.value)
    with pytest.raises(EcadError, match=r"in a file named inception-2015-12-05\.pt"):
        get_feature_extractor("inception_v3", tmp_path / "mine.pt", "cpu")
