"""Similarity of images and texts: the cosine of their CLIP embeddings."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from ecad.builtin import JUDGE_FOLDER
from ecad.images.files import Images
from ecad.quality.weights import missing_weights

BATCH = 64
# Names that CLIP's own release gives its models -> the same weights on the Hugging Face hub.
HUB_IDS = {
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}


class Clip:
    """A CLIPModel in transformers format that scores how well images match texts (Radford et al., arXiv 2103.00020).

    Args:
        weights: a name such as `ViT-B/32`, a hub id, or a local folder with model, tokenizer and image processor.
        device: device of the model.
        processor: hub id or folder of the tokenizer and image processor, if they are not in `weights`.

    Raises:
        EcadError: the model is not found.
    """

    def __init__(
        self, weights: str | os.PathLike[str], device: str = "cpu", processor: str | os.PathLike[str] | None = None
    ) -> None:
        from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

        source = HUB_IDS.get(str(weights), os.fspath(weights))
        texts_and_images = source if processor is None else os.fspath(processor)
        try:
            self.model = CLIPModel.from_pretrained(source, dtype=torch.float32).to(device).eval()  # type: ignore[arg-type]
            self.tokenizer = AutoTokenizer.from_pretrained(texts_and_images)
            self.processor = CLIPImageProcessorPil.from_pretrained(texts_and_images)
        except (OSError, ValueError, RuntimeError) as error:
            raise missing_weights("a CLIPModel with tokenizer and image processor", source, error) from error

    @torch.no_grad()
    def features(self, images: Images) -> np.ndarray:
        """Embeddings, float32 (n, width) and not normalized, of images, each uint8 (height, width, 3)."""
        parts = []
        for start in range(0, len(images), BATCH):
            pictures = [Image.fromarray(image) for image in images[start : start + BATCH]]
            pixels = self.processor(pictures, return_tensors="pt")["pixel_values"].to(self.model.device)
            parts.append(self.model.get_image_features(pixel_values=pixels).pooler_output.cpu().numpy())
        return np.concatenate(parts)

    def embed_images(self, images: Images) -> torch.Tensor:
        """Unit vectors, float32 (n, width), of images, each uint8 (height, width, 3)."""
        return torch.nn.functional.normalize(torch.from_numpy(self.features(images)), dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors, float32 (n, width), of texts."""
        limit = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        features = self.model.get_text_features(**tokens.to(self.model.device)).pooler_output
        return torch.nn.functional.normalize(features, dim=-1).cpu()

    def cosine(self, images: Images, texts: Sequence[str]) -> np.ndarray:
        """Cosine of each image with its own text, float64 (n,)."""
        return np.asarray((self.embed_images(images) * self.embed_texts(texts)).sum(dim=-1).double())

    def score(self, images: Images, prompts: Sequence[str]) -> np.ndarray:
        """100 times the cosine of each image with its own prompt (CLIP score, Hessel et al., arXiv 2104.08718).

        Args:
            images: n images, each uint8 (height, width, 3).
            prompts: n texts.

        Returns:
            float64 (n,), at most 100; not clipped at 0, which would bias the mean.
        """
        return 100 * self.cosine(images, prompts)

    def preference(self, images: Images, prompts: Sequence[str]) -> np.ndarray:
        """The cosine times the model's logit scale, float64: PickScore (Kirstain et al., arXiv 2305.01569)."""
        return float(self.model.logit_scale.detach().exp()) * self.cosine(images, prompts)


class Judge(Clip):
    """CLIP score of images for their prompts, by default with the built-in CLIP model."""

    def __init__(self, folder: str | os.PathLike[str] = JUDGE_FOLDER, device: str = "cpu") -> None:
        super().__init__(folder, device)
