"""`ecad fid`: how far generated images are from reference images (FID, KID)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecad.commands.main import finish, loading, main
from ecad.commands.matching import Each, images_of
from ecad.commands.options import Device
from ecad.errors import EcadError
from ecad.utils.console import bar, say
from ecad.utils.files import write_atomic

if TYPE_CHECKING:
    from ecad.quality.features import FeatureExtractor
    from ecad.quality.fid import Statistics


def fid(
    gen_dir: Annotated[Path, typer.Option(help="Folder with the generated images of one schedule.")],
    ref_dir: Annotated[Path | None, typer.Option(help="Folder of reference images.")] = None,
    ref_stats: Annotated[
        str | None,
        typer.Option(help="Reference statistics: an .npz file (mu, sigma), or clean-fid's NAME/SPLIT/RESOLUTION."),
    ] = None,
    output_subpath: Annotated[
        Path, typer.Option("--output-subpath", "-o", help="Name of the output file in the folder of generated images.")
    ] = Path("fid_scores.json"),
    model_name: Annotated[
        str, typer.Option(help="inception_v3; clip_vit_b_32 or any CLIPModel; judge (built in).")
    ] = "inception_v3",
    weights: Annotated[str | None, typer.Option(help="Local copy of the model's weights.")] = None,
    each: Each = False,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Folder of cached features; default: ecad/features in your cache folder.")
    ] = None,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compute FID and KID between generated and reference images. Lower is more similar."""
    if (ref_dir is None) == (ref_stats is None):
        raise EcadError("give either --ref-dir or --ref-stats")
    from ecad.images.files import by_schedule

    generated = images_of(gen_dir)
    folders = by_schedule(generated, each)
    references = None if ref_dir is None else images_of(ref_dir)
    ref_files = [] if references is None else references.files
    loading(model_name, as_json)
    from ecad.quality import fid as distances
    from ecad.quality.features import default_cache, get_feature_extractor

    for folder, files in [*folders.items(), *([(ref_dir, ref_files)] if ref_dir else [])]:
        if len(files) < distances.FEW_IMAGES:
            say(f"{folder}: {len(files)} images; below {distances.FEW_IMAGES} an FID is biased: compare like with like")
    extractor = get_feature_extractor(model_name, weights, device)
    cache = cache_dir or default_cache()
    given = None if ref_stats is None else distances.load_statistics(ref_stats, model_name)
    reference = given or _statistics(ref_files, extractor, cache, "reference", as_json)
    rows: list[dict[str, Any]] = []
    for folder, files in folders.items():
        statistics = _statistics(files, extractor, cache, str(folder), as_json)
        row = {
            "gen_dir": str(folder),
            "ref_dir": None if ref_dir is None else str(ref_dir),
            "ref_stats": ref_stats,
            "model_name": model_name,
            "model": extractor.name,
            "fid_score": distances.fid(statistics, reference),
            "kid_score": distances.kid(statistics, reference),
            "num_generated": len(files),
            "num_reference": reference.count,
        }
        write_atomic(folder / output_subpath, json.dumps(row, indent=1) + "\n")
        rows.append(row)
    passed_over = {str(one.root): dict(one.skipped) for one in (generated, references) if one is not None}
    finish({"folders": rows, "passed_over": passed_over}, "\n".join(map(_line, rows)), as_json)


def _statistics(
    files: Sequence[Path], extractor: FeatureExtractor, cache: Path, label: str, hidden: bool
) -> Statistics:
    from ecad.quality.features import folder_features
    from ecad.quality.fid import Statistics

    return Statistics.of(folder_features(files, extractor, cache, partial(bar, label=label, hidden=hidden)))


def _line(row: dict[str, object]) -> str:
    kid = "" if row["kid_score"] is None else f", KID {row['kid_score']:.6f}"
    against = row["ref_stats"] or f"{row['num_reference']} reference images"
    return f"{row['gen_dir']}: FID {row['fid_score']:.4f}{kid}, {row['num_generated']} images against {against}"


if __name__ == "__main__":
    main(fid)
