"""CLIP likeness of images to their prompts, by default as the built-in judge sees it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from ecad.builtin import JUDGE_FOLDER
from ecad.errors import EcadError

BATCH = 64


class Judge:
    """A CLIPModel in transformers format that tells how well images fit texts (Radford et al., arXiv 2103.00020).

    Args:
        folder: the model with its tokenizer and image processor.
        device: where it runs.

    Raises:
        EcadError: the folder holds no such model.
    """

    name = "judge"

    def __init__(self, folder: str | os.PathLike[str] = JUDGE_FOLDER, device: str = "cpu") -> None:
        from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

        try:
            self.model = CLIPModel.from_pretrained(folder, dtype=torch.float32).to(device).eval()  # type: ignore[arg-type]
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            self.processor = CLIPImageProcessorPil.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise EcadError(
                f"{os.fspath(folder)}: expected a CLIPModel with tokenizer and image processor: {error}"
            ) from error

    @torch.no_grad()
    def embed_images(self, images: np.ndarray) -> torch.Tensor:
        """Unit vectors, float32 (n, width), of images, uint8 (n, height, width, 3)."""
        parts = []
        for start in range(0, len(images), BATCH):
            pictures = [Image.fromarray(image) for image in images[start : start + BATCH]]
            pixels = self.processor(pictures, return_tensors="pt")["pixel_values"].to(self.model.device)
            parts.append(self.model.get_image_features(pixel_values=pixels).pooler_output)
        return torch.nn.functional.normalize(torch.cat(parts), dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors, float32 (n, width), of texts."""
        limit = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        features = self.model.get_text_features(**tokens.to(self.model.device)).pooler_output
        return torch.nn.functional.normalize(features, dim=-1)

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """100 times the cosine of each image with its own prompt (CLIP score, Hessel et al., arXiv 2104.08718).

        Args:
            images: uint8 (n, height, width, 3).
            prompts: n texts.

        Returns:
            float64 (n,), at most 100.
        """
        cosine = (self.embed_images(images) * self.embed_texts(prompts)).sum(dim=-1)
        return 100 * cosine.double().cpu().numpy()
