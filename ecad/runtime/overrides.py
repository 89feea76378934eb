"""Overrides single methods of single objects, and restores them.

A method is overridden on the instance: the module tree, the parameters and the class stay as they are, and nothing
else in the process notices. A copy or a pickle of the object has its own methods and no trace of the override. Several
tools may do this to one object (accelerate's offload, diffusers' own hooks), in any order. An override that is no
longer on top passes every call through instead of cutting off what was put above it.

No class here has __slots__: torch.compile loses what a block assigns to them, and does not see them change.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from ecad.utils.protocols import Args, Kwargs

_REDUCE = "__reduce_ex__"


class Override:
    """Stands in for `owner.name` until removed.

    Args:
        owner: any object with its own `__dict__`.
        name: one of its methods.

    Attributes:
        original: the method as it was.
        method: what stands in for it: a partial that finds this object in its owner. Met in any other way,
            torch.compile would make a block anew for each override, and not only for each thing that one can do.
        of: whatever put it there; `overrides_on` finds it again.
    """

    of: object = None

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name, self.removed = owner, name, False
        self.previous = vars(owner).get(name)
        self.original: Callable[..., Any] = getattr(owner, name)
        self._key = next(key for n in count() if (key := f"_ecad_{name}_{n}") not in vars(owner))
        vars(owner)[self._key] = self
        vars(owner)[_REDUCE] = partial(_reduced, owner)  # copy and pickle look it up on the object
        self.method = partial(_call, owner, name, self._key)
        self.method.__wrapped__ = self.original  # type: ignore[attr-defined]  # pipelines inspect signatures
        setattr(owner, name, self.method)

    def run(self, *args: object, **kwargs: object) -> object:
        """What the method does."""
        return self.original(*args, **kwargs)

    @property
    def is_on_top(self) -> bool:
        """Whether nothing was put above it since."""
        return vars(self.owner).get(self.name) is self.method

    def remove(self) -> None:
        """Put back what was there before, or pass every call through if something else was put on top since."""
        self.removed, self.of = True, None
        if not self.is_on_top and not self._cut_out():
            return
        del vars(self.owner)[self._key]
        if self.is_on_top:
            if self.previous is None:
                delattr(self.owner, self.name)
            else:
                setattr(self.owner, self.name, self.previous)
        if not overrides_on(self.owner):
            del vars(self.owner)[_REDUCE]
        below = override_of(self.previous)
        if below is not None and below.removed:
            below.remove()

    def _cut_out(self) -> bool:
        """Put back what was there before where accelerate or diffusers remember what lies below their own hooks."""
        registry = vars(self.owner).get("_diffusers_hook")
        places = [vars(self.owner), *(vars(reference) for reference in getattr(registry, "_fn_refs", ()))]
        found = [(place, key) for place in places for key, value in place.items() if value is self.method]
        for place, key in found:
            place[key] = self.original
        return bool(found)


def override_of(method: Any) -> Override | None:
    """The override that a method of an object comes from, if it does."""
    if not isinstance(method, partial) or method.func is not _call:
        return None
    owner, _, key = method.args
    found = vars(owner).get(key)
    return found if isinstance(found, Override) else None


def overrides_on(owner: Any) -> list[Override]:
    """Every override on an object, the lowest first."""
    return [value for value in vars(owner).values() if isinstance(value, Override)]


def _call(owner: object, name: str, key: str, *args: Any, **kwargs: Any) -> Any:
    override = getattr(owner, key, None)
    if override is None:  # in a copy of an owner that somebody else had put a method of his own on
        return getattr(type(owner), name)(owner, *args, **kwargs)
    return override.run(*args, **kwargs)


def _reduced(owner: Any, protocol: Any) -> Any:
    """What copies and pickles of an object are made from: the object without overrides."""
    cls: Any = type(owner)
    make, args, state, *more = cls.__reduce_ex__(owner, protocol)
    bare = {key: value for key, value in state.items() if key != _REDUCE and not isinstance(value, Override)}
    for name in {override.name for override in overrides_on(owner)}:
        method = bare.pop(name, None)
        while (override := override_of(method)) is not None:
            method = override.previous
        if method is not None:
            bare[name] = method
    return make, args, bare, *more


class After(Override):
    """Calls `then()` each time the method has returned."""

    def __init__(self, owner: object, name: str, then: Callable[[], None]) -> None:
        super().__init__(owner, name)
        self.then = then

    def run(self, *args: object, **kwargs: object) -> object:
        result = self.original(*args, **kwargs)
        if not self.removed:
            self.then()
        return result


class Around(Override):
    """Calls `around(method, args, kwargs)` instead of the method."""

    def __init__(self, owner: object, name: str, around: Callable[[Callable[..., Any], Args, Kwargs], Any]) -> None:
        super().__init__(owner, name)
        self.around = around

    def run(self, *args: object, **kwargs: object) -> object:
        return self.original(*args, **kwargs) if self.removed else self.around(self.original, args, kwargs)
