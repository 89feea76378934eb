"""`ecad embed-mjhq`: encode MJHQ's prompts, one folder a category."""

from __future__ import annotations

from ecad.commands.encoding import FilePath, OutputDir, PromptBatchSize, Seed, SeedStep, encode
from ecad.commands.main import main
from ecad.commands.options import (
    AddressOption,
    AsJson,
    Device,
    ExecutorOption,
    GpusOption,
    ImageGeneratorOption,
    TimeoutOption,
    Weights,
    WorkersOption,
)
from ecad.execution.pool import Spread
from ecad.prompts import read_prompts


def embed_mjhq(
    image_generator: ImageGeneratorOption,
    file_path: FilePath,
    output_dir: OutputDir,
    prompt_batch_size: PromptBatchSize = 1000,
    seed: Seed = 0,
    seed_step: SeedStep = 0,
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
    address: AddressOption = None,
    gpus_per_worker: GpusOption = None,
    task_timeout: TimeoutOption = 3600,
    weights: Weights = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Encode MJHQ's prompts, `{id: {category, prompt}}`, into one folder a category."""
    from ecad.jobs.encode import by_category

    folders = by_category(read_prompts(file_path, "mjhq"), seed, seed_step)
    spread = Spread(executor, workers, address, gpus_per_worker, task_timeout)
    encode(image_generator, folders, output_dir, prompt_batch_size, weights, device, as_json, spread)


if __name__ == "__main__":
    main(embed_mjhq)
