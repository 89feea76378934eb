"""A block with one component, its recorded forward, and the operators that a replay runs."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ecad.runtime.hooks import ComponentHook, Now
from ecad.runtime.inputs import Inputs
from ecad.runtime.kept_outputs import CacheStats, Tally
from ecad.runtime.passes import Forward, Pass, PlanRows
from ecad.runtime.replay.facts import Facts
from ecad.runtime.replay.program import Program
from ecad.runtime.replay.trace import record
from ecad.schedules.forecast import Ahead
from ecad.schedules.plan import Action, make_plan


class Operators(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class Block(nn.Module):
    """A component between glue that a test gives it."""

    def __init__(self, before, after):
        super().__init__()
        self.ff = nn.Linear(4, 4)
        self.before, self.after = before, after

    def forward(self, x):
        return self.after(x, self.ff(self.before(x)))


class Recorded:
    """A block whose component's output is kept in the first row and reused from then on, and the graph of that row."""

    def __init__(self, before=lambda x: x, after=lambda x, y: x + y, seed=0, batch=2):
        torch.manual_seed(0)
        self.block = Block(before, after).eval()
        hook = ComponentHook(self.block.ff, 0, Now())
        self.now = hook.now
        rows = PlanRows(make_plan(np.array([[1], [0], [0], [0]])), [Ahead()] * 4)
        self.of = Pass(rows, 0, None, Inputs([], (), {}), set(), Tally(CacheStats()), None)
        x = some_input(seed, batch)
        inputs = Inputs([], (x,), {})
        self.now.forward = forward = Forward(self.of, 0)
        self.facts = Facts(self.block, [self.block.ff])
        components = [self.block.ff]
        with torch.no_grad():
            self.result, self.graph = record(self.block.forward, components, inputs, forward, self.facts)
        self.kept = self.of.kept(0, 0)

    def run(self, x, action=Action.REUSE):
        """What the graph gives."""
        constants = self.graph.bind(self.facts.tensors())
        program = Program(self.graph, [action], constants)
        program.bind(constants)
        self.now.forward = forward = Forward(self.of, 1)
        forward.actions = [action]
        kept = forward.get_all(program.reads)
        assert kept is not None
        return program.run(forward, kept, [x])

    def plain(self, x, action=Action.REUSE):
        """What the block gives."""
        self.now.forward = forward = Forward(self.of, 1)
        forward.actions = [action]
        return self.block(x)


def some_input(seed=3, batch=2):
    return torch.randn(batch, 3, 4, generator=torch.Generator().manual_seed(seed))
