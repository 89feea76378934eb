"""Overrides single methods of single objects, and restores them.

A method is overridden on the instance: the module tree, the parameters and the class stay as they are, and nothing
else in the process notices. Several tools may do this to one object (accelerate's offload, diffusers' own hooks), in
any order. An override that is no longer on top passes every call through instead of cutting off what was put above it.

No class here has __slots__: torch.compile loses what a block assigns to them, and does not see them change.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any


class Override:
    """Stands in for `owner.name` until removed. A copy of the owner gets the original method instead.

    Arguments:
        owner: any object with its own `__dict__`.
        name: one of its methods.

    Attributes:
        original: the method as it was.
        method: what stands in for it: a partial that finds this object in its owner. Met in any other way,
            torch.compile would make a block anew for each override, and not only for each thing that one can do.
    """

    removed: bool

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name, self.removed = owner, name, False
        self.previous = vars(owner).get(name)
        self.original: Callable[..., Any] = getattr(owner, name)
        self._key = next(key for n in count() if (key := f"_ecad_{name}_{n}") not in vars(owner))
        vars(owner)[self._key] = self
        self.method = partial(_call, owner, self._key)
        self.method.__wrapped__ = self.original  # type: ignore[attr-defined]  # pipelines inspect signatures
        setattr(owner, name, self.method)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """What the method does."""
        return self.original(*args, **kwargs)

    def __reduce__(self) -> Any:
        return _Copy, (self.original,)

    def remove(self) -> None:
        """Put back what was there before, or pass every call through if something else was put on top since."""
        self.removed = True
        if vars(self.owner).get(self.name) is not self.method:
            return
        del vars(self.owner)[self._key]
        if self.previous is None:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.previous)
        below = override_of(self.previous)
        if below is not None and below.removed:
            below.remove()


def override_of(method: Any) -> Override | None:
    """The override that a method of an object comes from, if it does."""
    found = getattr(*method.args) if isinstance(method, partial) and method.func is _call else None
    return found if isinstance(found, Override) else None


def _call(owner: Any, key: str, *args: Any, **kwargs: Any) -> Any:
    return getattr(owner, key).run(*args, **kwargs)


class _Copy:
    """What becomes of an override when its owner is copied."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self.run = original


class After(Override):
    """Calls `then()` each time the method has returned."""

    def __init__(self, owner: Any, name: str, then: Callable[[], None]) -> None:
        super().__init__(owner, name)
        self.then = then

    def run(self, *args: Any, **kwargs: Any) -> Any:
        result = self.original(*args, **kwargs)
        if not self.removed:
            self.then()
        return result


class Around(Override):
    """Calls `around(method, args, kwargs)` instead of the method."""

    def __init__(self, owner: Any, name: str, around: Callable[[Callable[..., Any], Any, Any], Any]) -> None:
        super().__init__(owner, name)
        self.around = around

    def run(self, *args: Any, **kwargs: Any) -> Any:
        return self.original(*args, **kwargs) if self.removed else self.around(self.original, args, kwargs)
