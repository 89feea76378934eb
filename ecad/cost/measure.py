"""Counts the MACs of one denoiser forward on the meta device, by site and separately for layers and attention."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ecad.cost.architectures import Architecture
from ecad.cost.inputs import check_size, forward_inputs
from ecad.errors import EcadError
from ecad.sites.discovery import Site, discover
from ecad.utils.protocols import Args, Kwargs

_LAYERS = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
_ATEN = torch.ops.aten
# Operators of other libraries (quantised matrix products) may do anything.
_KNOWN = {"aten", "prim", "prims"}
# Matrix product -> the argument whose last axis is summed over.
_SUMMED_OVER = {_ATEN.mm: 0, _ATEN.bmm: 0, _ATEN.addmm: 1, _ATEN.baddbmm: 1}


class Measured(NamedTuple):
    """MACs of one forward.

    Args:
        sites: (block, component) of each site.
        layers: int64 (sites + 1,), MACs of linear and convolution layers by site and, last, outside the sites.
        attention: int64 (sites + 1,), MACs of all other matrix products.
    """

    sites: tuple[tuple[str, str], ...]
    layers: np.ndarray
    attention: np.ndarray


def measure(transformer: torch.nn.Module, inputs: Mapping[str, object]) -> Measured:
    """Count the multiply-accumulates of one forward at the sites that perform them.

    Args:
        transformer: the denoiser; on the meta device nothing is computed.
        inputs: keyword arguments of its forward, on the same device.

    Raises:
        EcadError: the forward uses a matrix operation that cannot be counted.
    """
    sites = discover(transformer)
    meter = _Meter(len(sites))
    # The math backend computes attention as two batched matrix products on any device.
    with meter.attached(transformer, sites), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), meter:
        transformer(**inputs)
    return Measured(tuple((site.block, site.component) for site in sites), meter.macs[0], meter.macs[1])


@lru_cache(maxsize=64)
def measure_architecture(architecture: Architecture, height: int, width: int, text_tokens: int) -> Measured:
    """Count the MACs of one step of one image, including the guidance pair, without weights; cached.

    Args:
        architecture: the denoiser.
        height, width: size of the image in pixels.
        text_tokens: length of the text sequence.

    Raises:
        EcadError: the denoiser cannot take the size, or its inputs are not known.
    """
    if architecture.measured is not None:
        check_size(architecture, height, width)
        known = architecture.measured
        sites = tuple((block, component) for block, component in known["sites"])
        return Measured(sites, np.array(known["layers"]), np.array(known["attention"]))
    inputs = forward_inputs(architecture, height, width, text_tokens)
    with torch.device("meta"):
        return measure(meta_denoiser(architecture), inputs)


def meta_denoiser(architecture: Architecture) -> torch.nn.Module:
    """Build a denoiser on the meta device, without weights."""
    import diffusers

    with torch.device("meta"):
        transformer_class = getattr(diffusers, architecture.transformer["_class_name"])
        denoiser: torch.nn.Module = transformer_class.from_config(architecture.transformer)
    return denoiser


class _Meter(TorchDispatchMode):
    """Adds the MACs of each matrix product to the entry of the running site (row 0: in a layer, row 1: elsewhere)."""

    def __init__(self, num_sites: int) -> None:
        super().__init__()
        self.macs = np.zeros((2, num_sites + 1), dtype=np.int64)
        self.site = self.outside = num_sites
        self.in_layer = False

    @contextmanager
    def attached(self, transformer: torch.nn.Module, sites: Sequence[Site]) -> Iterator[None]:
        """Track, within the context, which site is running and whether a layer is."""
        with ExitStack() as stack:
            for index, site in enumerate(sites):
                self._track(stack, site.module, "site", index, self.outside)
            for module in transformer.modules():
                if isinstance(module, _LAYERS):
                    self._track(stack, module, "in_layer", True, False)
            yield

    def _track(self, stack: ExitStack, module: torch.nn.Module, name: str, inside: object, outside: object) -> None:
        before = module.register_forward_pre_hook(lambda *_: setattr(self, name, inside))
        after = module.register_forward_hook(lambda *_: setattr(self, name, outside))
        stack.callback(before.remove)
        stack.callback(after.remove)

    def __torch_dispatch__(
        self, func: torch._ops.OpOverload, types: object, args: Args = (), kwargs: Kwargs | None = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in _SUMMED_OVER:
            self._add(out.numel() * args[_SUMMED_OVER[packet]].shape[-1])
        elif packet is _ATEN.convolution:
            transposed = args[6]
            self._add((args[0] if transposed else out).numel() * math.prod(args[1].shape[1:]))
        elif packet in flop_registry or func.namespace not in _KNOWN:
            raise EcadError(f"{func} cannot be counted: expected one of {', '.join(map(str, _SUMMED_OVER))}")
        return out

    def _add(self, macs: int) -> None:
        self.macs[0 if self.in_layer else 1, self.site] += macs
