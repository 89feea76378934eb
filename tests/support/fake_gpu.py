"""A GPU whose side streams do nothing before somebody waits for them, and that notices whoever should have waited."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ecad.runtime import side_stream
from ecad.runtime.kept_outputs import tensors_in


class Race(AssertionError):
    """Memory that is used before it is ready, or after it may be somebody else's."""


class FakeStream:
    """Notes up to which operator of the main stream it has waited."""

    def __init__(self, gpu):
        self.gpu, self.seen = gpu, -1

    def wait_stream(self, other):
        assert other is self.gpu.main
        self.seen = self.gpu.clock

    def record_event(self):
        return len(self.gpu.begun)

    def wait_event(self, event):
        self.gpu.finish(event)

    def synchronize(self):
        self.gpu.finish(len(self.gpu.begun))


class FakeGpu(TorchDispatchMode):
    """Stands in for `side_stream.Cuda`, with the CPU as the GPU; operators on the main stream run at once.

    Attributes:
        begun: copies on the side stream (to, from), in order; the first `done` of them have been made.
    """

    def __init__(self):
        super().__init__()
        self.main, self.clock = FakeStream(self), 0
        self.begun, self.done, self.on_side = [], 0, False
        self._written = {}  # memory -> clock
        self._host = set()  # memory that is not the GPU's
        self._lent = {}  # memory allocated on a stream, used on the other one -> whether it was recorded there

    def install(self, monkeypatch):
        for name in ("current", "stream", "on", "moves", "pinned", "record"):
            monkeypatch.setattr(side_stream.Cuda, name, getattr(self, name))

    def current(self, device):
        return self.main

    def stream(self, device):
        return FakeStream(self)

    @contextmanager
    def on(self, stream):
        self.on_side, self.running = True, stream
        try:
            yield
        finally:
            self.on_side = False

    def moves(self, tensor, to):
        return True

    def pinned(self, tensor):
        made = torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else torch.zeros_like(tensor)
        self._host.add(_memory(made))
        return made

    def record(self, tensor, stream):
        self._lent[_memory(tensor)] = True

    def finish(self, number):
        for to, source in self.begun[self.done : number]:
            if not self._lent.get(_memory(source), True):
                raise Race("read by the side stream, which the allocator does not know of")
            with torch.utils._python_dispatch._disable_current_modes():
                to.data.copy_(source)  # versions do not change late
        self.done = max(self.done, number)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, given = func.overloadpacket.__name__, list(tensors_in([args, kwargs or {}]))
        if self.on_side and name == "copy_":
            self._begin(*args[:2])
            return args[0]
        if not self.on_side:
            self.clock += 1
            self._check(given, {_memory(args[0])} if func._schema.is_mutable else set())
        result = func(*args, **(kwargs or {}))
        mine = set(map(_memory, given))
        for tensor in tensors_in([result]):
            if (memory := _memory(tensor)) not in mine:
                self._lent.pop(memory, None)
                self._host.discard(memory)
                if mine and mine <= self._host and not self.on_side:
                    self._host.add(memory)
                if self.on_side:
                    self._lent[memory] = False
            if not self.on_side and (memory not in mine or func._schema.is_mutable):
                self._written[memory] = self.clock
        return result

    def _begin(self, to, source):
        if (memory := _memory(source)) not in self._host:
            if self._written.get(memory, -1) > self.running.seen:
                raise Race("copied before it was computed")
            self._lent.setdefault(memory, False)
        self.begun.append((to, source))

    def _check(self, given, changed):
        waiting = self.begun[self.done :]
        coming, going = {_memory(to) for to, _ in waiting}, {_memory(source) for _, source in waiting}
        for memory in map(_memory, given):
            if memory in coming:
                raise Race("used before it has arrived")
            if memory in going & changed:
                raise Race("changed before it was copied")
            if self._lent.get(memory) is False:
                raise Race("used by the main stream, which the allocator does not know of")


def _memory(tensor):
    return tensor.untyped_storage()._cdata
