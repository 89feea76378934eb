"""Chooses, names and synchronizes devices."""

from __future__ import annotations

import platform

import torch

from ecad.errors import EcadError


def choose_device(device: str) -> str:
    """Resolve `auto` to CUDA, MPS or the CPU, the first that is available.

    Args:
        device: `auto`, or a device that PyTorch knows.

    Raises:
        EcadError: the device is not available.
    """
    if device != "auto":
        try:
            torch.empty(0, device=device)
        except (AssertionError, RuntimeError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise EcadError(f"device {device!r} is not available: {reason}; use auto, cpu, cuda or mps") from error
        return device
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def device_name(device: torch.device) -> str:
    """The name of the GPU, or of the processor and its number of threads.

    >>> device_name(torch.device("cpu")).endswith(f"{torch.get_num_threads()} threads")
    True
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} {device.type}, {torch.get_num_threads()} threads"


def device_kind(device: torch.device) -> str:
    """The name of a GPU; of another device its type, since images do not depend on which processor it is."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def synchronize() -> None:
    """Wait until the GPU has finished all work that was queued."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()
