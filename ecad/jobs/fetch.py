"""Downloads prompt files, reference images and published schedules from their public sources, checked and resumable.

None of these files is part of this package: each keeps its own licence.
"""

from __future__ import annotations

import hashlib
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecad.errors import EcadError
from ecad.schedules import CacheSchedule
from ecad.utils.files import make_folder, write_atomic

GITHUB = "https://raw.githubusercontent.com"
HUB: str | None = None  # the default of huggingface_hub
MJHQ = "playgroundai/MJHQ-30K"
_RELEASE = "AniAggarwal/ecad/fb9e0e5ea8176df9852cfffe03f372f0d6757b5b"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Source:
    """A file at a commit of a GitHub repository.

    Args:
        address: owner/repository/commit/path.
        target: path relative to the working folder, where the commands look for it.
        licence: name of the work and its licence.
        sha256: digest of the content if known. Otherwise the file must be a readable schedule.
    """

    address: str
    target: str
    licence: str
    sha256: str | None = None


def _schedule(name: str) -> Source:
    path = f"schedules/schedules_in_paper/{name}.json"
    return Source(f"{_RELEASE}/{path}", path, "published with the paper without a licence: to use, not to distribute")


SOURCES = {
    "coco": [
        Source(
            "Shenyi-Z/ToCa/1973ead0e568c1336484c7bcfcb1662cb64499b7/COCO_caption_prompts_30k.txt",
            "prompts/COCO_caption_prompts_30k.txt",
            "MS-COCO captions, CC-BY-4.0",
            "b70291bb413a4acc73b3242f065dcae4c328a8d6b99c99ff6b3221b9ba06e50e",
        )
    ],
    "parti": [
        Source(
            "google-research/parti/2c99f6652cbc7f0d0441aa91f4c7e7055bcb0071/PartiPrompts.tsv",
            "prompts/PartiPrompts.tsv",
            "PartiPrompts, Apache-2.0",
            "fab29e41bb512a169b56acab4cf2a41dcb675e285df2efcde6640c7dd3c440eb",
        )
    ],
    "drawbench": [
        Source(
            "Shenyi-Z/ToCa/6a1c618a1cb7645a38818977a79fd67ff5022a04/DrawBench200.txt",
            "prompts/DrawBench200.txt",
            "DrawBench, published with Imagen; no licence is stated there",
            "3bf3fce1c56d5fedf1af832cfb855bd4e16bacd2e4a36c123d50d04d4fd0afb7",
        )
    ],
    "image-reward": [
        Source(
            "THUDM/ImageReward/1beb4e4de0932acbe7fc090c51208048b6269b58/benchmark/benchmark-prompts.json",
            "prompts/ImageRewardPrompts.json",
            "ImageReward, Apache-2.0",
            "34682e824ebb3ad8e2531b3cde1b362dc72e1e29946ff6fab77bb49e9edb4b21",
        ),
        Source(
            f"{_RELEASE}/prompts/ImageRewardPrompts.txt",
            "prompts/ImageRewardPrompts.txt",
            "the same prompts, one per line: ImageReward, Apache-2.0",
            "866fc201765f1e3701626e1b4db0752804947b692d9a440a0149fec9ed3e7932",
        ),
    ],
    "published-schedules": [
        _schedule(name)
        for name in (
            "flux_256/ours_fast",
            "flux_256/ours_faster",
            "flux_256_to_1024/fast_256_to_1024",
            "flux_256_to_1024/slow_256_to_1024",
            "pixart_alpha_256/ours_fast",
            "pixart_alpha_256/ours_faster",
            "pixart_alpha_256/ours_fastest",
            "pixart_alpha_ablations/pop_24_imgs_pp_10_prompts_100_highest_tmacs",
            "pixart_alpha_ablations/pop_72_imgs_pp_03_prompts_100_highest_tmacs",
            "pixart_alpha_ablations/pop_72_imgs_pp_10_prompts_100_baseline_highest_tmacs",
            "pixart_alpha_ablations/pop_72_imgs_pp_10_prompts_33_highest_tmacs",
            "pixart_alpha_ablations/pop_72_imgs_pp_5_prompts_200_drawbench_highest_tmacs",
            "pixart_alpha_to_sigma_transfer/pixart_alpha_gen_200",
            "pixart_alpha_to_sigma_transfer/pixart_alpha_gen_250",
            "pixart_alpha_to_sigma_transfer/pixart_sigma_from_alpha_gen_200",
            "pixart_alpha_to_sigma_transfer/pixart_sigma_from_alpha_gen_250",
            "pixart_sigma_256/ours_fast",
        )
    ],
}


def fetch(source: Source, folder: Path) -> bool:
    """Download one file; an interrupted download resumes.

    Returns:
        False if the file was already there.

    Raises:
        EcadError: the file cannot be downloaded or written, its content is wrong, or another file is in its place.
    """
    target = folder / source.target
    if target.exists():
        _check(source, target, f"{target}: this is not the published file; move it away, then fetch again")
        return False
    make_folder(target.parent)
    partial = target.with_name(f".{target.name}.partial")
    url = f"{GITHUB}/{source.address}"
    _download(url, partial)
    try:
        _check(source, partial, f"{url}: the downloaded file is not the published one; fetch again later")
    except EcadError:
        partial.unlink()
        raise
    partial.replace(target)
    return True


def fetch_mjhq(folder: Path, prompts_only: bool, progress: type | None = None) -> Iterator[str]:
    """Download MJHQ-30K's prompts and reference images through huggingface_hub, which caches its downloads.

    Args:
        folder: folder for `prompts/MJHQ-30K-prompts.json` and `references/mjhq/`.
        prompts_only: skip the images, some gigabytes.
        progress: class of the tqdm bar to show.

    Yields:
        a description of each downloaded part.

    Raises:
        EcadError: the hub cannot be reached, or a file cannot be written.
    """
    from ecad.prompts.files import read_prompts

    metadata = _from_hub("meta_data.json", progress)
    count = len(read_prompts(metadata, "mjhq"))
    target = folder / "prompts" / "MJHQ-30K-prompts.json"
    write_atomic(target, metadata.read_bytes())
    yield f"{target}: {count} prompts"
    if not prompts_only:
        images = folder / "references" / "mjhq"
        count = _unpack(_from_hub("mjhq30k_imgs.zip", progress), images)
        yield f"{images}: {count} images"


def _check(source: Source, file: Path, problem: str) -> None:
    if source.sha256 is None:
        CacheSchedule.load(file)
    elif hashlib.sha256(file.read_bytes()).hexdigest() != source.sha256:
        raise EcadError(problem)


def _download(url: str, partial: Path) -> None:
    """Download the missing rest of a file, or all of it if the server does not support ranges."""
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            resumes = response.status == 206
            expected = int(response.headers.get("Content-Length") or 0) + (start if resumes else 0)
            with open(partial, "ab" if resumes else "wb") as stream:
                shutil.copyfileobj(response, stream, _CHUNK)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the range is empty: the partial file is complete or too long
            raise EcadError(f"{url}: cannot be downloaded: the server says {error.code} {error.reason}") from error
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise EcadError(f"{url}: cannot be downloaded: {reason}; run the command again to resume") from error
    if expected and partial.stat().st_size < expected:
        raise EcadError(f"{url}: the connection broke; run the command again to resume")


def _from_hub(name: str, progress: type | None) -> Path:
    from huggingface_hub import hf_hub_download

    bar: dict[str, Any] = {} if progress is None else {"tqdm_class": progress}
    try:
        return Path(hf_hub_download(MJHQ, name, repo_type="dataset", endpoint=HUB, **bar))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EcadError(
            f"{name} of {MJHQ}: cannot be downloaded from the Hugging Face hub: {reason}; run the command again to "
            "resume"
        ) from error


def _unpack(archive: Path, folder: Path) -> int:
    """Unpack the missing images atomically and return the number of images."""
    make_folder(folder)
    if not zipfile.is_zipfile(archive):
        raise EcadError(f"{archive}: this is no zip archive; delete it and fetch again")
    with zipfile.ZipFile(archive) as content:
        images = [entry for entry in content.infolist() if not entry.is_dir()]
        for entry in images:
            parts = Path(entry.filename).parts
            # category/name.jpg, without the archive's parent folders.
            target = folder.joinpath(*parts[-2:])
            if ".." in parts:
                raise EcadError(f"{archive}: the archive names a file outside of its folder: {entry.filename!r}")
            if not (target.exists() and target.stat().st_size == entry.file_size):
                write_atomic(target, content.read(entry))
    return len(images)
