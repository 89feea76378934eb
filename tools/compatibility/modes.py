"""The modes in which each pipeline is run, and their checks.

A mode is a function of a `Case`. It returns None if all checks pass, raises `Wrong` with a line or `NotTried` with the
reason, or lets ecad's own error through.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any
from unittest import mock

import diffusers
import torch
from case import Case, NotTried, Wrong, one_line, same
from checks import (
    Stop,
    aborted,
    ends_guidance,
    interrupts,
    must_be_empty,
    must_be_same,
    takes_callback,
    traces,
    work,
)
from copies import in_processes
from torch import nn

import ecad
from ecad.sites.discovery import discover

SEEDS = (0, 1, 2)


def eager(case: Case) -> None:
    """Several random schedules; afterwards the pipeline is unchanged."""
    recording, before = case.plain(), traces(case.pipe)
    if not same(recording.output, case.subject.run()):
        raise NotTried("the bare pipeline gives something else each time")
    shows = False
    for seed in SEEDS:
        schedules = case.schedules(recording, seed)
        want = case.interpret(recording, schedules)
        shows |= not same(want.output, recording.output)
        with case.cached(schedules) as run:
            must_be_same(case.subject.run(), want.output, f"random schedule {seed}")
            must_be_empty(run)
            if want.reused and not run.stats.reused:
                raise Wrong("nothing was reused")
    must_be_same(case.subject.run(), recording.output, "after disabling")
    if left := set(traces(case.pipe)) - set(before):
        raise Wrong(f"left behind: {', '.join(sorted(left)[:3])}")
    if not shows:
        raise NotTried("what is reused makes no difference to the output")


def second_generation(case: Case) -> None:
    """The same generation again, then another seed, with one enabled cache."""
    recording, other = case.plain(), case.record(seed=1)
    schedules = case.schedules(recording, 1)
    want = case.interpret(recording, schedules), case.interpret(other, schedules, seed=1)
    with case.cached(schedules) as run:
        for number, (seed, what) in enumerate(((0, want[0]), (0, want[0]), (1, want[1]))):
            must_be_same(case.subject.run(seed), what.output, f"generation {number + 1}")
            must_be_empty(run)


def interrupted(case: Case) -> None:
    """Generations aborted in each row by an error, and by the pipeline's own flag; then a new generation."""
    recording, other = case.plain(), case.record(seed=1)
    schedules = case.schedules(recording, 2)
    want = case.interpret(other, schedules, seed=1)
    with case.cached(schedules) as run:
        for steps in (1, 3):
            broken = False
            with aborted(steps):
                try:
                    case.subject.run()
                except Stop:
                    broken = True
            if broken:
                must_be_empty(run, "after a generation that an error ended")
            must_be_same(case.subject.run(1), want.output, f"after a generation that ended at its step {steps}")
        if takes_callback(case) and hasattr(case.pipe, "interrupt"):
            case.subject.run(callback_on_step_end=interrupts)
            must_be_empty(run, "after an interrupted generation")
            must_be_same(case.subject.run(1), want.output, "after an interrupted generation")


def guidance_off(case: Case) -> None:
    """Guidance ends after the second row."""
    changes = _guider_that_ends(case) if hasattr(case.pipe, "guider") else _callback_that_ends(case)
    recording = case.record(**changes)
    for seed in SEEDS[:2]:
        schedules = case.schedules(recording, seed)
        want = case.interpret(recording, schedules, **changes)
        with case.cached(schedules) as run:
            for generation in (1, 2):
                got = case.subject.run(**changes)
                must_be_same(got, want.output, f"schedule {seed}, generation {generation}")
                must_be_empty(run)


def _guider_that_ends(case: Case) -> dict[str, Any]:
    def guide(stop: float) -> None:
        # A used guider is still at its last row when the next run reads the prompt.
        case.pipe.update_components(guider=diffusers.ClassifierFreeGuidance(guidance_scale=4.0, stop=stop))

    changes = _negative(case)
    case.subject.begin = lambda: guide(1.0)
    plain = case.record(**changes)
    case.subject.begin = lambda: guide(0.5)
    if work(case.record(**changes)) >= work(plain):
        raise NotTried("the pipeline's guider does not end in mid-run")
    return changes


def _negative(case: Case) -> dict[str, str]:
    """A negative prompt, if the pipeline takes one and its test gives none."""
    given = {"negative_prompt", "negative_prompt_embeds"} & set(case.subject.inputs())
    return {"negative_prompt": "bad"} if "negative_prompt" in case.subject.parameters() and not given else {}


def _callback_that_ends(case: Case) -> dict[str, Any]:
    if not takes_callback(case):
        raise NotTried("the pipeline has no callback after a step")
    strong: dict[str, Any] = {"guidance_scale": 4.0} if "guidance_scale" in case.subject.parameters() else {}
    strong |= _negative(case)
    plain = case.record(**strong)
    refused = ""
    for ends in (ends_guidance(halves=False), ends_guidance(halves=True, pipe=case.pipe)):
        try:
            recording = case.record(**strong, **ends)
        except NotTried as error:
            refused = f": {error}"
            continue
        if work(recording) < work(plain):
            return {**strong, **ends}
    raise NotTried(f"the pipeline's guidance does not end in mid-run{refused}")


def forecasts(case: Case) -> None:
    """Schedules that extrapolate: components and, in rows that compute nothing, the whole denoiser."""
    recording = case.plain()
    for seed in SEEDS[:2]:
        schedules = case.schedules(recording, seed, forecast=True)
        want = case.interpret(recording, schedules)
        with case.cached(schedules) as run:
            for generation in (1, 2):
                must_be_same(case.subject.run(), want.output, f"schedule {seed}, generation {generation}")
                must_be_empty(run)


def offload(case: Case) -> None:
    """Offloading: accelerate's hooks for the model and for each module, and diffusers' groups of layers."""
    import accelerate

    recording = case.plain()
    schedules = case.schedules(recording, 0)
    want = case.interpret(recording, schedules)
    device = torch.device("cpu")

    def whole(module: nn.Module) -> Callable[[], None]:
        accelerate.cpu_offload_with_hook(module, execution_device=device)
        return lambda: accelerate.hooks.remove_hook_from_module(module, recurse=True)

    def parts(module: nn.Module) -> Callable[[], None]:
        accelerate.cpu_offload(module, execution_device=device)
        return lambda: accelerate.hooks.remove_hook_from_module(module, recurse=True)

    kinds = {"model offload": whole, "sequential offload": parts}
    tried, why = 0, ""
    for kind, put in kinds.items():
        for when in ("before", "after"):
            undo: list[Callable[[], None]] = []

            def install(put: Any = put, undo: list[Callable[[], None]] = undo) -> None:
                undo.extend(put(module) for module in case.modules.values())

            try:
                if when == "before":
                    install()
                    try:
                        case.subject.run()
                    except Exception as error:
                        why = f"{kind} does not work for the bare pipeline: {one_line(error)}"
                        break
                with case.cached(schedules) as run:
                    if when == "after":
                        install()
                    for generation in (1, 2):
                        got = case.subject.run()
                        must_be_same(got, want.output, f"{kind}, put on {when} enabling, generation {generation}")
                        must_be_empty(run)
                tried += 1
            finally:
                for take_off in undo:
                    take_off()
    if not tried:
        raise NotTried(why)


def layerwise_casting(case: Case) -> None:
    """Weights stored in eight bits and cast before each layer."""
    _on_modified(case, lambda module: module.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32))


def quantised(case: Case) -> None:
    """torchao's 8-bit weights."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    _on_modified(case, lambda module: quantize_(module, Int8WeightOnlyConfig()))


def lora(case: Case) -> None:
    """A peft LoRA in the linear layers of the blocks; then other weights are copied into it."""
    from peft import LoraConfig, inject_adapter_in_model

    def adapt(module: nn.Module) -> None:
        torch.manual_seed(1)
        inside = tuple(f"{path}.".removeprefix(".") for path in _block_paths(module))
        linear = [
            name
            for name, part in module.named_modules()
            if isinstance(part, nn.Linear) and name.startswith(inside) and name.split(".")[-1] != "linear"
        ]
        if not linear:
            raise NotTried("no block has a linear layer")
        config = LoraConfig(r=2, lora_alpha=2, target_modules=linear, init_lora_weights=False)
        inject_adapter_in_model(config, module, adapter_name="first")

    def swap() -> None:
        for module in case.modules.values():
            for name, value in module.named_parameters():
                if "lora_" in name:
                    value.data.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(2)))

    _on_modified(case, adapt)
    recording = case.record()
    schedules = case.schedules(recording, 1)
    with case.cached(schedules):
        case.subject.run()
        swap()
        got = case.subject.run()
    recording = case.record()
    must_be_same(got, case.interpret(recording, schedules).output, "after other weights were copied into the LoRA")


def compiled(case: Case) -> None:
    """The blocks compiled one by one, with dynamo's eager backend, which is bit-identical."""
    recording = case.plain()
    # Whole rows, except for one: compiling a graph for each combination within a block takes long.
    schedules = {}
    for name, schedule in case.schedules(recording, 0).items():
        bits = schedule.recompute.copy()
        bits[::2], bits[3::2] = True, False
        schedules[name] = schedule.replace(recompute=bits)
    want = case.interpret(recording, schedules)
    torch._dynamo.config.recompile_limit = 64
    for module in case.modules.values():
        blocks = dict(module.named_modules())
        for path in _block_paths(module):
            blocks[path].compile(backend="eager")
    try:
        bare = case.subject.run()
    except Exception as error:
        raise NotTried(f"the bare pipeline does not compile: {one_line(error)}") from error
    if not same(bare, recording.output):
        raise NotTried("compilation changes the bare pipeline's output")
    with case.cached(schedules) as run:
        for generation in (1, 2):
            must_be_same(case.subject.run(), want.output, f"generation {generation}")
            must_be_empty(run)


def context_parallel(case: Case) -> None:
    """Two processes with half of the sequence each (Ulysses), over gloo."""
    if not all(getattr(module, "_cp_plan", None) for module in case.modules.values()):
        raise NotTried("diffusers has no context parallel plan for its transformer")
    with tempfile.TemporaryDirectory() as folder:
        answers = in_processes(2, lambda rank: _in_parallel(case, rank, f"file://{folder}/meeting"))
    for answer in answers:
        if answer is not None:
            raise answer


def _in_parallel(case: Case, rank: int, meeting: str) -> Exception | None:
    """The check in one of the two processes."""
    torch.distributed.init_process_group("cpu:gloo", init_method=meeting, rank=rank, world_size=2)
    config = diffusers.ContextParallelConfig(ulysses_degree=2, ulysses_anything=True)
    cpu = mock.patch("torch._C._get_accelerator", return_value=torch.device("cpu"))
    one = mock.patch("torch.accelerator.device_count", return_value=1)

    def share(module: nn.Module) -> None:
        with cpu, one:
            module.enable_parallelism(config=config)

    try:
        _on_modified(case, share)
    except (Wrong, NotTried, ecad.EcadError) as error:
        return error
    except Exception as error:
        return Wrong(one_line(error))
    return None


MODES: dict[str, Callable[[Case], None]] = {
    "eager": eager,
    "second generation": second_generation,
    "interrupted": interrupted,
    "guidance off": guidance_off,
    "forecasts": forecasts,
    "offload": offload,
    "layerwise casting": layerwise_casting,
    "torchao": quantised,
    "LoRA": lora,
    "context parallel": context_parallel,
    "compiled": compiled,
}
# The most informative modes first, the slowest ones last.
ROUNDS = (1, 5, 10, 11)


def _block_paths(module: nn.Module) -> set[str]:
    """Paths of the blocks with sites; the empty path if the denoiser is itself a site."""
    return {site.path.rpartition(".")[0] for site in discover(module)}


def _on_modified(case: Case, modify: Callable[[nn.Module], Any]) -> None:
    try:
        for module in case.modules.values():
            modify(module)
        case.subject.run()
    except NotTried:
        raise
    except Exception as error:
        raise NotTried(f"the bare pipeline does not work so: {one_line(error)}") from error
    recording = case.record()
    schedules = case.schedules(recording, 0)
    want = case.interpret(recording, schedules)
    with case.cached(schedules) as run:
        for generation in (1, 2):
            must_be_same(case.subject.run(), want.output, f"generation {generation}")
            must_be_empty(run)
