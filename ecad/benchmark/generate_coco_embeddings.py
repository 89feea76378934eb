"""`ecad embed-coco`: encode COCO's captions, 3,000 a folder."""

from __future__ import annotations

from ecad.commands.encoding import FilePath, OutputDir, PromptBatchSize, Seed, SeedStep, encode
from ecad.commands.main import loading, main
from ecad.commands.options import AsJson, ImageGeneratorOption, ModelOptions, Overwrite, WorkerOptions, grouped_options
from ecad.prompts import PromptFile, broken_captions
from ecad.utils.console import say


@grouped_options
def embed_coco(
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
    """Encode COCO's captions, one per line, into folders of 3,000."""
    model.check(image_generator)
    prompts = PromptFile(file_path, "txt")
    if broken := broken_captions(file_path):
        say(
            f"{file_path}: {len(prompts)} lines, of which {len(broken)} seem to end inside a caption (line "
            f"{', '.join(map(str, broken[:5]))}{', ...' if len(broken) > 5 else ''}); every line is taken as a prompt"
        )
    loading(image_generator, as_json)
    from ecad.jobs.encode import megabatches, numbered

    folders = megabatches(numbered(prompts, seed, seed_step))
    encode(folders, output_dir, prompt_batch_size, image_generator, model, workers, overwrite, as_json)


if __name__ == "__main__":
    main(embed_coco)
