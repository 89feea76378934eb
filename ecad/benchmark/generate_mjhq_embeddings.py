"""`ecad embed-mjhq`: encode MJHQ's prompts, one folder a category."""

from __future__ import annotations

from ecad.commands.encoding import FilePath, OutputDir, PromptBatchSize, Seed, SeedStep, encode
from ecad.commands.main import loading, main
from ecad.commands.options import AsJson, ImageGeneratorOption, ModelOptions, Overwrite, WorkerOptions, grouped_options
from ecad.prompts import read_prompts


@grouped_options
def embed_mjhq(
    *,
    image_generator: ImageGeneratorOption,
    file_path: FilePath,
    output_dir: OutputDir,
    prompt_batch_size: PromptBatchSize = 1000,
    seed: Seed = 0,
    seed_step: SeedStep = 0,
    workers: WorkerOptions,
    model: ModelOptions,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Encode MJHQ's prompts, `{id: {category, prompt}}`, into one folder a category."""
    model.check(image_generator)
    prompts = read_prompts(file_path, "mjhq")
    loading(image_generator, as_json)
    from ecad.jobs.encode import by_category

    folders = by_category(prompts, seed, seed_step)
    encode(folders, output_dir, prompt_batch_size, image_generator, model, workers, overwrite, as_json)


if __name__ == "__main__":
    main(embed_mjhq)
