"""Kept outputs in main memory, moved there and back on a stream of their own while the GPU computes.

All moves of a GPU follow one another on one stream, so that what was sent away has arrived before it is brought back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class Cuda:
    """What the moves need of CUDA."""

    stream = staticmethod(torch.cuda.Stream)
    current = staticmethod(torch.cuda.current_stream)
    on = staticmethod(torch.cuda.stream)

    @staticmethod
    def moves(tensor: torch.Tensor, to: torch.device) -> bool:
        """Whether a tensor that is kept on a device is to be moved by a side stream."""
        return tensor.is_cuda and to.type == "cpu"

    @staticmethod
    def pinned(tensor: torch.Tensor) -> torch.Tensor:
        """Memory for a tensor that the GPU can copy into by itself."""
        return torch.empty_like(tensor, device="cpu", pin_memory=True)

    @staticmethod
    def record(tensor: torch.Tensor, stream: Any) -> None:
        """Let nobody have a tensor's memory before a stream has come to this point."""
        tensor.record_stream(stream)


class SideStream:
    """Moves tensors between a GPU and main memory.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, Cuda.stream(device)

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """Begin to copy a tensor to main memory.

        Args:
            tensor: that nobody changes any more.

        Returns:
            The copy, for this object's own eyes until `settle`.
        """
        self._stream.wait_stream(Cuda.current(self._device))  # it has been computed
        copy = Cuda.pinned(tensor)
        with Cuda.on(self._stream):
            copy.copy_(tensor, non_blocking=True)
        Cuda.record(tensor, self._stream)
        return copy

    def bring(self, sent: Sequence[torch.Tensor]) -> Arrival:
        """Begin to copy tensors back.

        Args:
            sent: what `send` gave.
        """
        with Cuda.on(self._stream):
            tensors = [torch.empty_like(one, device=self._device) for one in sent]
            for tensor, one in zip(tensors, sent, strict=True):
                tensor.copy_(one, non_blocking=True)
        return Arrival(tensors, self._stream.record_event(), Cuda.current(self._device))

    def settle(self) -> None:
        """Wait until everything has been moved."""
        self._stream.synchronize()


class Arrival:
    """Tensors on their way back to a GPU.

    Args:
        tensors: on the GPU.
        event: that comes after their copies.
        stream: that is to use them.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], event: Any, stream: Any) -> None:
        self._tensors, self._event, self._stream = tensors, event, stream

    def get(self) -> Sequence[torch.Tensor]:
        """The tensors, for what the GPU is given to do from now on."""
        self._stream.wait_event(self._event)
        for tensor in self._tensors:
            Cuda.record(tensor, self._stream)
        return self._tensors
