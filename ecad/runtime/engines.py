"""Denoisers that are no torch modules: engines of ONNX Runtime, TensorRT and the like, anything that is called."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from ecad.sites.discovery import unwrapped


def module_of(engine: Any) -> nn.Module:
    """A module that stands for an engine: of its class's name, its configuration and its arguments, without weights.

    Args:
        engine: any callable.

    >>> module = module_of(lambda sample, timestep: sample + timestep)
    >>> module(1, timestep=2), type(module).__name__
    (3, 'function')
    """

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.engine(*args, **kwargs)

    told = inspect.signature(getattr(engine, "forward", engine))
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    forward.__signature__ = told.replace(  # type: ignore[attr-defined]
        parameters=[itself, *told.parameters.values()]
    )
    module = type(type(engine).__name__, (nn.Module,), {"forward": forward})()
    module.engine, module.config = engine, getattr(engine, "config", {})
    assert isinstance(module, nn.Module)
    return module


class EngineProxy:
    """What a pipeline calls instead of an engine while a cache is enabled: its module, and the engine for all else.

    It is no module: pipelines ask their modules for a device.

    Args:
        engine: the engine.
        module: `module_of` it.
    """

    def __init__(self, engine: Any, module: nn.Module) -> None:
        self._orig_mod, self.module = engine, module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    forward = __call__

    def __getattr__(self, name: str) -> Any:
        if name == "_orig_mod":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self._orig_mod, name)


class Engines:
    """The engines among the denoisers of a pipeline, and their modules.

    Args:
        found: name -> denoiser.
    """

    def __init__(self, found: Mapping[str, Any]) -> None:
        self._engines = {name: one for name, one in found.items() if not isinstance(one, nn.Module)}
        self.modules: dict[str, nn.Module] = {
            name: module_of(one) if name in self._engines else one for name, one in found.items()
        }

    def called(self, pipe: Any, name: str) -> Any:
        """What a pipeline's calls of a denoiser come to."""
        return self.modules[name] if name in self._engines else getattr(pipe, name)

    def is_in(self, pipe: Any, name: str) -> bool:
        """Whether a denoiser is still the pipeline's."""
        found = unwrapped(getattr(pipe, name))
        return found is self._engines.get(name, self.modules[name])

    def attach(self, pipe: Any) -> None:
        """Have a pipeline call the modules."""
        for name, engine in self._engines.items():
            # Without the pipeline's own __setattr__, which notes a class.
            vars(pipe)[name] = EngineProxy(engine, self.modules[name])

    def detach(self, pipe: Any) -> None:
        """Have it call the engines again."""
        for name, engine in self._engines.items():
            if self.is_in(pipe, name):
                vars(pipe)[name] = engine
