"""Short digests of what results depend on: weights, configurations, files."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ecad.errors import EcadError
from ecad.utils.adapters import active_adapters

# Keys of a configuration that describe its origin, not what it computes.
_ORIGIN = {"architectures", "dtype", "name_or_path", "torch_dtype", "transformers_version"}
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def weights_fingerprint(*modules: torch.nn.Module, digits: int = 16) -> str:
    """A hash of weights in hexadecimal digits, from up to about 64 values of each tensor.

    Args:
        modules: models on any device.
        digits: length of the result, at most 64.

    Raises:
        EcadError: a model is an engine that is no module.
    """
    digest = hashlib.sha256()
    for module in modules:
        if not isinstance(module, torch.nn.Module):
            raise EcadError(f"{type(module).__name__} is no torch module, and its weights have no fingerprint")
        for name, tensor in _tensors(module):
            digest.update(f"{name} {tuple(tensor.shape)} ".encode() + _sample(tensor))
        digest.update(_of_adapters(module))
    return digest.hexdigest()[:digits]


@torch.no_grad()
def part_fingerprint(part: object) -> str:
    """A hash, in sixteen hexadecimal digits, of what a component of a pipeline computes.

    It covers the class and configuration of a sampler, tokenizer or image processor, and of a model also every bit of
    the weights. Values that are the defaults of the class are left out, so that a release of diffusers that adds a
    setting keeps the hash.

    Args:
        part: one of `pipe.components`, a list of them, or the pipeline itself, of which only the class and the plain
            values of the configuration are hashed.

    >>> from diffusers import DDIMScheduler
    >>> part_fingerprint(DDIMScheduler()) == part_fingerprint(DDIMScheduler(clip_sample=True))
    True
    >>> part_fingerprint(DDIMScheduler()) == part_fingerprint(DDIMScheduler(clip_sample=False))
    False
    """
    if isinstance(part, list | tuple):
        return _digest([part_fingerprint(one) for one in part])
    facts = [type(part).__name__, _configuration(part)]
    if not isinstance(part, torch.nn.Module):
        return _digest(facts)
    digest = hashlib.sha256(_digest(facts).encode())
    for name, tensor in _tensors(part):
        digest.update(f"{name} {tuple(tensor.shape)} {_sum_of_bits(tensor)} ".encode() + _sample(tensor))
    digest.update(_of_adapters(part))
    return digest.hexdigest()[:16]


def file_fingerprint(content: bytes) -> str:
    """A hash of a file's content, in sixteen hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:16]


def _tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The plain tensors of a model by name; those that a quantised weight is made of stand for it."""
    left = list(module.state_dict().items())[::-1]
    while left:
        name, value = left.pop()
        if is_traceable_wrapper_subclass(value):
            left += [(f"{name}.{part}", getattr(value, part)) for part in reversed(value.__tensor_flatten__()[0])]
        elif isinstance(value, torch.Tensor):  # quantised models have other values among their weights
            yield name, value


def _of_adapters(module: torch.nn.Module) -> bytes:
    """The strength of adapters, which is not among the weights; nothing without adapters."""
    found = active_adapters(module)
    return json.dumps(found).encode() if found else b""


def _sample(tensor: torch.Tensor) -> bytes:
    values = tensor.flatten()[:: max(1, tensor.numel() // 64)].float().cpu().numpy()
    return bytes(values.tobytes())


def _sum_of_bits(tensor: torch.Tensor) -> int | None:
    """The sum of a tensor's values, read as integers: one changed value always changes it; None for unusual tensors."""
    try:
        with torch._C.DisableTorchFunctionSubclass():  # GGUF's parameters cannot be summed
            plain = tensor.detach().contiguous().flatten()
            return int(plain.view(_INTEGERS[tensor.element_size()]).sum(dtype=torch.int64))
    except (KeyError, NotImplementedError, RuntimeError, TypeError):
        return None


def _configuration(part: object) -> object:
    """The values of a component's configuration that are not its class's defaults, as JSON values."""
    if (backend := getattr(part, "backend_tokenizer", None)) is not None:
        return {**json.loads(backend.to_str()), **_as_after_encoding(part)}
    if callable(vocabulary := getattr(part, "get_vocab", None)):
        return sorted(vocabulary().items())
    config: Any = getattr(part, "config", None)
    if hasattr(config, "to_diff_dict"):
        return _without_origin(config.to_diff_dict())
    if isinstance(config, Mapping):
        components = getattr(part, "components", {})  # of a pipeline: their fingerprints are taken one by one
        return _non_default(type(part), {key: value for key, value in config.items() if key not in components})
    if callable(described := getattr(part, "to_dict", None)):
        return _without_origin(described())
    return None


def _as_after_encoding(tokenizer: Any) -> dict[str, object]:
    """The padding that encoding prompts leaves in a tokenizer, whatever its last call was."""
    padding = {
        "strategy": "BatchLongest",
        "direction": tokenizer.padding_side.capitalize(),
        "pad_to_multiple_of": None,
        "pad_id": tokenizer.pad_token_id,
        "pad_type_id": tokenizer.pad_token_type_id,
        "pad_token": tokenizer.pad_token,
    }
    return {"truncation": None, "padding": None if tokenizer.pad_token is None else padding}


def _non_default(kind: type, config: Mapping[str, object]) -> dict[str, object]:
    parameters: Iterable[inspect.Parameter] = inspect.signature(kind).parameters.values()
    defaults = {one.name: _plain(one.default) for one in parameters if one.default is not inspect.Parameter.empty}
    return {
        key: value
        for key, value in _without_origin(config).items()
        if key not in defaults or _plain(value) != defaults[key]
    }


def _without_origin(config: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if not str(key).startswith("_") and key not in _ORIGIN}


def _plain(value: object) -> object:
    return json.loads(json.dumps(value, default=str))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
