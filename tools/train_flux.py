"""Train a FLUX-like transformer on the built-in model's latents, then distil its guidance.

python tools/train_flux.py build --minutes 66                # resumes from build/flux/base
python tools/train_flux.py build --distil --minutes 14       # resumes from build/flux/distilled

Like FLUX.1-dev, it has double-stream blocks, then single-stream blocks, flow matching, two frozen text encoders
(the built-in model's T5, and the judge's text encoder for the pooled vector), and the guidance scale as an input.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextModel, T5EncoderModel, T5Tokenizer

from emoji_data import caption, load_sprites
from train_denoiser import VARIANTS, Latents, make_latents
from training import Training

MAX_TOKENS = 12
GUIDANCE = (1.0, 5.0)
TRANSFORMER = dict(
    patch_size=1,
    in_channels=16,
    num_layers=3,
    num_single_layers=6,
    attention_head_dim=32,
    num_attention_heads=4,
    joint_attention_dim=128,
    pooled_projection_dim=96,
    guidance_embeds=True,
    axes_dims_rope=(4, 14, 14),
)
# Tokens (images, MAX_TOKENS, 128) and pooled (images, 96).
Text = tuple[Tensor, Tensor]


def new_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """FLUX.1-dev's sampler."""
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


def new_transformer() -> FluxTransformer2DModel:
    """The transformer with gates, modulation and output starting at zero (adaLN-zero, arXiv 2212.09748)."""
    model = FluxTransformer2DModel(**TRANSFORMER)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and (".norm" in f".{name}" or name == "proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return model


def new_pipeline(folder: Path, transformer: FluxTransformer2DModel) -> FluxPipeline:
    """A pipeline of the trained parts; the tokenizer also replaces CLIP's, as in the judge."""
    tokenizer = T5Tokenizer.from_pretrained(folder / "denoiser" / "tokenizer", model_max_length=MAX_TOKENS)
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    vae.register_to_config(shift_factor=0.0)
    return FluxPipeline(
        scheduler=new_scheduler(),
        vae=vae,
        text_encoder=CLIPTextModel.from_pretrained(folder / "judge"),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel.from_pretrained(folder / "denoiser" / "text_encoder"),
        tokenizer_2=tokenizer,
        transformer=transformer,
    )


class Captions:
    """Precomputed embeddings of all captions, of captions without style or background, and of the empty caption."""

    def __init__(self, pipe: FluxPipeline, parts: list[tuple[str, str, str]]) -> None:
        texts = [self.forms(*part) for part in parts]
        every = list(dict.fromkeys(text for forms in texts for text in forms))
        self.places = torch.tensor([[every.index(text) for text in forms] for forms in texts])
        with torch.no_grad():
            batches = [every[i : i + 256] for i in range(0, len(every), 256)]
            embeds = [pipe.encode_prompt(batch, max_sequence_length=MAX_TOKENS) for batch in batches]
        self.tokens, self.pooled = (torch.cat([found[k] for found in embeds]) for k in (0, 1))

    @staticmethod
    def forms(name: str, style: str, background: str) -> tuple[str, str, str, str]:
        return caption(name, style, background), caption(name, None, background), caption(name, style, None), ""

    def get(self, index: np.ndarray, form: np.ndarray) -> Text:
        """Embeddings of the combinations `index`, each in one of the four variants."""
        places = self.places[torch.from_numpy(index), torch.from_numpy(form)]
        return self.tokens[places], self.pooled[places]


def velocity(model: FluxTransformer2DModel, noisy: Tensor, sigma: Tensor, guidance: Tensor, text: Text) -> Tensor:
    """The model's prediction for packed latents (batch, 64, 16) at noise levels and guidance scales (batch,)."""
    tokens, pooled = text
    side = int(noisy.shape[1] ** 0.5)
    return model(
        hidden_states=noisy,
        encoder_hidden_states=tokens,
        pooled_projections=pooled,
        timestep=sigma,
        guidance=guidance,
        img_ids=FluxPipeline._prepare_latent_image_ids(1, side, side, noisy.device, noisy.dtype),
        txt_ids=torch.zeros(tokens.shape[1], 3),
    ).sample


def draw(latents: Latents, size: int, rng: np.random.Generator) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
    """Combinations, latents, noise, both packed (size, 64, 16), and levels of noise (logit-normal, 2403.03206)."""
    index = rng.integers(len(latents.parts), size=size)
    clean = latents.values[index, rng.integers(VARIANTS, size=size)].float()
    packed = FluxPipeline._pack_latents(clean, *clean.shape)
    noise = torch.from_numpy(rng.standard_normal(packed.shape, dtype=np.float32))
    return index, packed, noise, torch.from_numpy(rng.standard_normal(size, dtype=np.float32)).sigmoid()


def mix(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    return clean + sigma.view(-1, 1, 1) * (noise - clean)


def flow_loss(model: FluxTransformer2DModel, latents: Latents, captions: Captions) -> Callable[..., Tensor]:
    """Flow matching loss (arXiv 2210.02747) on the velocity from image to noise; a tenth of the captions is dropped."""

    def loss(size: int, rng: np.random.Generator) -> Tensor:
        index, clean, noise, sigma = draw(latents, size, rng)
        form = rng.choice(4, size=size, p=(0.8, 0.05, 0.05, 0.1))
        text = captions.get(index, form)
        predicted = velocity(model, mix(clean, noise, sigma), sigma, torch.ones(size), text)
        return F.mse_loss(predicted, noise - clean)

    return loss


def distillation_loss(
    model: FluxTransformer2DModel, teacher: FluxTransformer2DModel, latents: Latents, captions: Captions
) -> Callable[..., Tensor]:
    """Guidance distillation: any scale in one pass instead of two (Meng et al., arXiv 2210.03142, stage one)."""

    def loss(size: int, rng: np.random.Generator) -> Tensor:
        index, clean, noise, sigma = draw(latents, size, rng)
        noisy, scale = mix(clean, noise, sigma), torch.from_numpy(rng.uniform(*GUIDANCE, size)).float()
        text, none = (captions.get(index, np.full(size, form)) for form in (0, 3))
        with torch.no_grad():
            both = [torch.cat(pair) for pair in zip(text, none, strict=True)]
            wanted, unwanted = velocity(
                teacher, noisy.repeat(2, 1, 1), sigma.repeat(2), torch.ones(2 * size), (both[0], both[1])
            ).chunk(2)
        predicted = velocity(model, noisy, sigma, scale, text)
        return F.mse_loss(predicted, unwanted + scale.view(-1, 1, 1) * (wanted - unwanted))

    return loss


def main(folder: Path, minutes: float, batch: int, rate: float, distil: bool) -> None:
    torch.manual_seed(0)
    base, out = folder / "flux" / "base", folder / "flux" / ("distilled" if distil else "base")
    model = FluxTransformer2DModel.from_pretrained(base) if distil else new_transformer()
    latents = make_latents(folder, load_sprites(folder / "npm"))
    captions = Captions(new_pipeline(folder, model), latents.parts)
    if distil:
        teacher = FluxTransformer2DModel.from_pretrained(base).requires_grad_(False)
        loss = distillation_loss(model, teacher, latents, captions)
    else:
        loss = flow_loss(model, latents, captions)
    models = nn.ModuleDict({"transformer": model})
    Training(out, models, loss, lambda: model.save_pretrained(out), rate).run(minutes, batch)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--distil", action="store_true", help="the second stage")
    parser.add_argument("--minutes", type=float, help="66, and 14 of distillation")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, help="0.001, and 0.0003 of distillation")
    args = parser.parse_args()
    torch.set_num_threads(1)
    default_minutes, default_rate = (14.0, 3e-4) if args.distil else (66.0, 1e-3)
    main(args.folder, args.minutes or default_minutes, args.batch, args.rate or default_rate, args.distil)
