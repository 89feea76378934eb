"""What all images of a run depend on, apart from their schedule, prompts and seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecad.errors import EcadError
from ecad.image_generators.generator import ImageGenerator
from ecad.utils.device import device_kind
from ecad.utils.versions import PARTS, versions

if TYPE_CHECKING:
    from ecad.jobs.generate import Batch


@dataclass(frozen=True)
class Conditions:
    """What all images of a run depend on, apart from their job, as JSON values.

    Args:
        settings: What identifies the images (see `begin_folder`).
        made_with: Package or device -> its version.
    """

    settings: Mapping[str, object]
    made_with: Mapping[str, str]


def conditions_of(generator: ImageGenerator, batches: Sequence[Batch]) -> Conditions:
    """The conditions under which a generator makes images of stored embeddings.

    Raises:
        EcadError: The embeddings are of several kinds, or were made for another generator.
    """
    # A batch is of one folder, and so of one kind.
    kinds = {json.dumps(batch[0].stored.settings, sort_keys=True) for batch in batches}
    if len(kinds) > 1:
        raise EcadError("the embeddings were made with several settings; give one folder at a time")
    embeddings = json.loads(kinds.pop())
    made_for = embeddings.get("image_generator", generator.name)
    if made_for != generator.name:
        raise EcadError(f"the embeddings were made for {made_for}; make them for {generator.name}")
    settings = {
        "image_generator": generator.name,
        "weights": generator.fingerprint(),
        PARTS: generator.parts(),
        "dtype": str(generator.dtype).removeprefix("torch."),
        "embeddings": embeddings,
        **({"call": found} if (found := generator.call_settings()) else {}),
    }
    return Conditions(settings, {**versions(), "device": device_kind(generator.pipe.device)})
