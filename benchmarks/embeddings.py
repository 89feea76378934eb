"""Bytes on disk of stored embeddings, compared with one padded fp32 file per prompt as in the method's first release.

python benchmarks/embeddings.py [--prompt-file coco.txt] [--tokenizer FOLDER] [--width 4096] [--prompts 1000]
                                [--output build/benchmarks/embeddings.json]

The embeddings are random values: their size depends only on the number of tokens. The default tokenizer is the built-in
model's, whose 2,120 pieces give more tokens per caption than T5's 32,000.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ecad.builtin import PIPELINE_FOLDER, prompts
from ecad.jobs.encode import numbered
from ecad.prompts import Prompt, read_prompts
from ecad.prompts.embeds import PromptEmbeds
from ecad.prompts.store import find_stored, load_stored, write_store
from ecad.utils.files import write_atomic

# Model -> tokens with padding. FLUX attends to its padding, so nothing can be trimmed there.
PIXART = {"PixArt-alpha": 120, "PixArt-Sigma": 300}
BATCH = 250


def padded_bytes(tokens: int, width: int) -> int:
    """Size of a file of the first release: the prompt and the empty negative prompt in float32, and masks in int64."""
    return 2 * tokens * (4 * width + 8)


def measure(texts: Sequence[str], tokenizer: Any, model: str, width: int, folder: Path) -> dict[str, object]:
    """Measure one row of the table."""
    lengths: list[int] = []

    def encode(batch: Sequence[str]) -> PromptEmbeds:
        counts = [min(len(ids), PIXART[model]) for ids in tokenizer(list(batch)).input_ids]
        lengths.extend(counts)
        rows = tuple(torch.randn(count, width, dtype=torch.float16) for count in counts)
        return PromptEmbeds(rows, negative=torch.randn(1, width, dtype=torch.float16))

    entries = list(numbered([Prompt(f"{i:04d}", text) for i, text in enumerate(texts)]))
    begin = time.perf_counter()
    for _ in write_store(folder, entries, encode, {"model": model}, BATCH):
        pass
    written = time.perf_counter() - begin
    begin = time.perf_counter()
    stored = find_stored(folder)["."]
    for start in range(0, len(stored), 100):
        load_stored(stored[start : start + 100])
    size = sum(file.stat().st_size for file in folder.iterdir()) / len(texts)
    return {
        "model": model,
        "prompts": len(texts),
        "tokens": sum(lengths) / len(lengths),
        "bytes_per_prompt": size,
        "padded_bytes_per_prompt": padded_bytes(PIXART[model], width),
        "times_smaller": padded_bytes(PIXART[model], width) / size,
        "write_seconds": written,
        "read_seconds": time.perf_counter() - begin,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt-file", type=Path, help="default: the built-in prompts")
    parser.add_argument("--tokenizer", type=Path, default=PIPELINE_FOLDER / "tokenizer")
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--prompts", type=int, default=1000, help="evenly spaced over the file")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/embeddings.json"))
    args = parser.parse_args()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    texts = [p.text for p in read_prompts(args.prompt_file)] if args.prompt_file else prompts("search")
    texts = texts[:: max(1, len(texts) // args.prompts)]
    with tempfile.TemporaryDirectory() as temporary:
        rows = [measure(texts, tokenizer, model, args.width, Path(temporary) / model) for model in PIXART]
    heads = f"{'KiB/prompt':>12}{'padded KiB':>12}{'smaller':>9}{'write s':>9}{'read s':>8}"
    print(f"{'model':14}{'prompts':>8}{'tokens':>8}{heads}")
    for row in rows:
        print(
            f"{row['model']:14}{row['prompts']:8}{row['tokens']:8.1f}{row['bytes_per_prompt'] / 1024:12.1f}"
            f"{row['padded_bytes_per_prompt'] / 1024:12.1f}{row['times_smaller']:8.1f}×{row['write_seconds']:9.1f}"
            f"{row['read_seconds']:8.1f}"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory: {peak:.0f} MiB")
    write_atomic(args.output, json.dumps({"rows": rows, "peak_mib": peak, "goal_times_smaller": 20}, indent=1) + "\n")


if __name__ == "__main__":
    main()
