"""Generates images under cache schedules on request, and reports the time of each; `runtime.py` starts it.

python benchmarks/runtime_worker.py MODEL_FILE, then one JSON request a line.

It uses nothing of ecad but `enable_cache` and `CacheSchedule.load`, so that it also runs on an older checkout.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import ecad


def make_pipeline(model: dict[str, Any], dtype: torch.dtype) -> diffusers.DiffusionPipeline:
    """The pipeline of a folder; or one with random weights, without what no schedule affects: text encoders and VAE."""
    torch.manual_seed(0)
    if model["folder"] is not None:
        pipe = diffusers.DiffusionPipeline.from_pretrained(model["folder"], torch_dtype=dtype)
        pipe.set_progress_bar_config(disable=True)
        return pipe
    config = model["config"]
    name = config["_class_name"]
    parts: dict[str, Any] = {"tokenizer": None, "text_encoder": None, "vae": None}
    if name == "PixArtTransformer2DModel":
        make, scheduler = diffusers.PixArtAlphaPipeline, diffusers.DPMSolverMultistepScheduler()
    else:
        make, scheduler = diffusers.FluxPipeline, diffusers.FlowMatchEulerDiscreteScheduler()
        parts |= {"tokenizer_2": None, "text_encoder_2": None}
    with torch.device("meta"):
        transformer = getattr(diffusers, name).from_config(config)
    transformer = transformer.to(dtype).to_empty(device="cpu").eval()
    with torch.no_grad():
        for tensor in (*transformer.parameters(), *transformer.buffers()):
            tensor.uniform_(-0.02, 0.02)
    pipe = make(transformer=transformer, scheduler=scheduler, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call_of(model: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of the pipeline: random text embeddings; the result is latents."""
    tokens, config = model["text_tokens"], model["config"]
    width = config["caption_channels"] if model["guidance_pair"] else config["joint_attention_dim"]
    call = {"height": model["size"], "width": model["size"], "num_inference_steps": model["steps"]}
    call |= {"output_type": "latent", "prompt_embeds": torch.randn(1, tokens, width, dtype=dtype)}
    if not model["guidance_pair"]:
        pooled = torch.randn(1, config["pooled_projection_dim"], dtype=dtype)
        return call | {"pooled_prompt_embeds": pooled, "guidance_scale": 5.0}
    masks = {"prompt_attention_mask": torch.ones(1, tokens), "negative_prompt_attention_mask": torch.ones(1, tokens)}
    negative = {"negative_prompt": None, "negative_prompt_embeds": torch.randn(1, tokens, width, dtype=dtype)}
    return call | masks | negative | {"use_resolution_binning": False}


class Dispatched(TorchDispatchMode):
    """Counts operators and the bytes that they read and write; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = self.kernels = self.moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operators += 1
        if not any(returned.alias_info for returned in func._schema.returns):
            tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
            self.kernels += 1
            self.moved += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


@contextmanager
def counted(transformer: Any) -> Iterator[list[Dispatched]]:
    """Count what each forward of the denoiser dispatches."""
    forwards: list[Dispatched] = []
    cls, original = type(transformer), type(transformer).__call__

    def count(self: Any, *args: Any, **kwargs: Any) -> Any:
        forwards.append(Dispatched())
        with forwards[-1]:
            return original(self, *args, **kwargs)

    cls.__call__ = count
    try:
        yield forwards
    finally:
        cls.__call__ = original


@contextmanager
def plain_hooks() -> Iterator[None]:
    """Run components under hooks and everything else as it is."""
    from ecad.runtime.replay import recordings
    from ecad.runtime.replay.facts import Unrecordable

    def refuse(*_: object) -> None:
        raise Unrecordable

    facts, recordings.Facts = recordings.Facts, refuse
    try:
        yield
    finally:
        recordings.Facts = facts


def generate(pipe: Any, call: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Generate one image.

    Args:
        pipe, call: the pipeline and its arguments.
        request: `schedule`, a file or None; `again`, whether a first image under it is not the one that counts;
            `counts`, whether operators are counted; `plain`, whether replay is turned off.

    Returns:
        Wall-clock and processor seconds of the pipeline's call, a digest of the latents, bytes and counts.
    """
    run = None
    with (
        plain_hooks() if request.get("plain") else nullcontext(),
        counted(pipe.transformer) if request.get("counts") else nullcontext([]) as forwards,
    ):
        if request["schedule"] is not None:
            run = ecad.enable_cache(pipe, ecad.CacheSchedule.load(request["schedule"]))
        if request.get("again"):
            pipe(**call, generator=torch.Generator().manual_seed(0))
        wall, processor = time.perf_counter(), time.process_time()
        latents = pipe(**call, generator=torch.Generator().manual_seed(0)).images
        found = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
    found["latents"] = hashlib.sha256(latents.float().numpy().tobytes()).hexdigest()
    if run is not None:
        found |= {"peak_bytes": run.stats.peak_cached_bytes, "predicted_bytes": run.memory()}
        run.disable()
    if forwards:
        last = forwards[3]
        found["forward"] = {"operators": last.operators, "kernels": last.kernels, "bytes": last.moved}
    return found


def main() -> None:
    torch.set_num_threads(1)
    model = json.loads(Path(sys.argv[1]).read_text())
    dtype = getattr(torch, model["dtype"])
    pipe = make_pipeline(model, dtype)
    call = call_of(model, dtype)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    for line in sys.stdin:
        print(json.dumps(generate(pipe, call, json.loads(line))), flush=True)
        # glibc's heap of freed tensors grew to 12 GB within ten images, and two workers did not fit into memory.
        if trim is not None:
            trim(0)


if __name__ == "__main__":
    main()
