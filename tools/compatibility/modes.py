"""The modes in which each pipeline is run, and their checks.

A mode is a function of a `Case`. It returns None if all checks pass, raises `Wrong` with a line or `NotTried` with the
reason, or lets ecad's own error through.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import torch
from copies import in_processes
from interpreter import Interpretation, NotTheSame, interpret
from recording import Recording, record, watched_schedulers
from subjects import Subject
from torch import nn

import ecad
from ecad.sites.discovery import denoisers, discover

SEEDS = (0, 1, 2)


class Wrong(Exception):
    """A check failed."""


class NotTried(Exception):
    """The mode does not apply to this pipeline."""


class _Stop(Exception):
    """Aborts a generation."""


class Case:
    """A subject with its denoisers.

    Attributes:
        subject: the pipeline and its inputs.
        modules: name -> denoiser.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject, self.pipe = subject, subject.pipe
        self.modules: dict[str, nn.Module] = denoisers(subject.pipe)
        self.rows: int | None = None
        self.seen: dict[str, Any] = {}
        self._plain: Recording | None = None

    def plain(self) -> Recording:
        """The bare generation with the default arguments, cached."""
        if self._plain is None:
            self._plain = self.record()
        self.seen = self._plain.describe()
        return self._plain

    def settle(self) -> None:
        """Find the number of rows that the runtime accepts, once for all modes."""
        with suppress(Exception):  # each mode reports its own error
            self.schedules(self.plain(), 0)

    def record(self, seed: int = 0, **changes: Any) -> Recording:
        """A bare generation."""
        try:
            recording = record(lambda: self.subject.run(seed, **changes), self.modules)
        except Exception as error:
            raise NotTried(f"the bare pipeline fails: {one_line(error)}") from error
        if not recording.forwards:
            raise NotTried("the pipeline does not call its transformer")
        if not any(forward.row is not None for forward in recording.forwards):
            raise NotTried("the pipeline steps no scheduler of diffusers'")
        if not recording.output:
            raise NotTried("the pipeline returns no tensors")
        self.seen = recording.describe()
        return recording

    def schedules(self, recording: Recording, seed: int, forecast: bool = False) -> dict[str, ecad.CacheSchedule]:
        """Random schedules, one per denoiser that runs."""
        used = {forward.denoiser for forward in recording.forwards}
        rows = self.rows or self._rows_that_fit(recording, used)
        drawn = np.random.default_rng(seed)
        skips = drawn.random(rows) < 0.5
        made = {}
        for name in [name for name in self.modules if name in used]:
            sites = tuple((site.block, site.component) for site in discover(self.modules[name]))
            bits = drawn.random((rows, len(sites))) < (0.5, 0.3, 0.7)[seed % 3]
            if forecast:
                bits[skips] = False
                _draw_parallel_sites_together(bits, sites)
            made[name] = ecad.CacheSchedule(bits, sites, name=f"random {seed}", forecast=forecast)
        return made

    def _rows_that_fit(self, recording: Recording, used: set[str]) -> int:
        """The number of timesteps, or of rows that ran: whatever the runtime accepts."""
        last = max(forward.row for forward in recording.forwards if forward.row is not None)
        refusal: Exception | None = None
        for rows in dict.fromkeys((*recording.rows, last + 1)):
            ones = {
                name: ecad.CacheSchedule.for_model(module, steps=rows)
                for name, module in self.modules.items()
                if name in used
            }
            try:
                with self.cached(ones):
                    got = self.subject.run()
            except ecad.EcadError as error:
                refusal = refusal or error
                continue
            if recording.forwards and not same(got, self.subject.run()):
                raise Wrong("with all ones the output is not that of the bare pipeline")
            self.rows = rows
            return rows
        assert refusal is not None
        raise refusal

    def cached(self, schedules: Mapping[str, ecad.CacheSchedule]) -> Any:
        """The pipeline with schedules, in a `with` block."""
        return ecad.cached(self.pipe, dict(schedules) if len(self.modules) > 1 else next(iter(schedules.values())))

    def interpret(
        self, recording: Recording, schedules: Mapping[str, ecad.CacheSchedule], seed: int = 0, **changes: Any
    ) -> Interpretation:
        """The interpreter's output for the schedules."""
        try:
            found = interpret(lambda: self.subject.run(seed, **changes), self.modules, schedules, recording)
        except NotTheSame as error:
            raise NotTried(f"what the pipeline does depends on its values: {error}") from error
        if not all(tensor.double().isfinite().all() for tensor in found.output):
            raise NotTried("the pipeline's output is not finite under a random schedule")
        return found


def eager(case: Case) -> None:
    """Several random schedules; afterwards the pipeline is unchanged."""
    recording, before = case.plain(), _traces(case.pipe)
    if not same(recording.output, case.subject.run()):
        raise NotTried("the bare pipeline gives something else each time")
    shows = False
    for seed in SEEDS:
        schedules = case.schedules(recording, seed)
        want = case.interpret(recording, schedules)
        shows |= not same(want.output, recording.output)
        with case.cached(schedules) as run:
            _must_be_same(case.subject.run(), want.output, f"random schedule {seed}")
            _must_be_empty(run)
            if want.reused and not run.stats.reused:
                raise Wrong("nothing was reused")
    _must_be_same(case.subject.run(), recording.output, "after disabling")
    if left := set(_traces(case.pipe)) - set(before):
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
            _must_be_same(case.subject.run(seed), what.output, f"generation {number + 1}")
            _must_be_empty(run)


def interrupted(case: Case) -> None:
    """Generations aborted in each row by an error, and by the pipeline's own flag; then a new generation."""
    recording, other = case.plain(), case.record(seed=1)
    schedules = case.schedules(recording, 2)
    want = case.interpret(other, schedules, seed=1)
    with case.cached(schedules) as run:
        for steps in (1, 3):
            broken = False
            with _broken_off(steps):
                try:
                    case.subject.run()
                except _Stop:
                    broken = True
            if broken:
                _must_be_empty(run, "after a generation that an error ended")
            _must_be_same(case.subject.run(1), want.output, f"after a generation that ended at its step {steps}")
        if _takes_callback(case) and hasattr(case.pipe, "interrupt"):
            case.subject.run(callback_on_step_end=_interrupts)
            _must_be_empty(run, "after an interrupted generation")
            _must_be_same(case.subject.run(1), want.output, "after an interrupted generation")


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
                _must_be_same(got, want.output, f"schedule {seed}, generation {generation}")
                _must_be_empty(run)


def _guider_that_ends(case: Case) -> dict[str, Any]:
    def guide(stop: float) -> None:
        # A used guider is still at its last row when the next run reads the prompt.
        case.pipe.update_components(guider=diffusers.ClassifierFreeGuidance(guidance_scale=4.0, stop=stop))

    changes = _negative(case)
    case.subject.begin = lambda: guide(1.0)
    plain = case.record(**changes)
    case.subject.begin = lambda: guide(0.5)
    if _work(case.record(**changes)) >= _work(plain):
        raise NotTried("the pipeline's guider does not end in mid-run")
    return changes


def _negative(case: Case) -> dict[str, str]:
    """A negative prompt, if the pipeline takes one and its test gives none."""
    given = {"negative_prompt", "negative_prompt_embeds"} & set(case.subject.inputs())
    return {"negative_prompt": "bad"} if "negative_prompt" in case.subject.parameters() and not given else {}


def _callback_that_ends(case: Case) -> dict[str, Any]:
    if not _takes_callback(case):
        raise NotTried("the pipeline has no callback after a step")
    strong: dict[str, Any] = {"guidance_scale": 4.0} if "guidance_scale" in case.subject.parameters() else {}
    strong |= _negative(case)
    plain = case.record(**strong)
    refused = ""
    for ends in (_ends_guidance(halves=False), _ends_guidance(halves=True, pipe=case.pipe)):
        try:
            recording = case.record(**strong, **ends)
        except NotTried as error:
            refused = f": {error}"
            continue
        if _work(recording) < _work(plain):
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
                _must_be_same(case.subject.run(), want.output, f"schedule {seed}, generation {generation}")
                _must_be_empty(run)


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
                        _must_be_same(got, want.output, f"{kind}, put on {when} enabling, generation {generation}")
                        _must_be_empty(run)
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
    _must_be_same(got, case.interpret(recording, schedules).output, "after other weights were copied into the LoRA")


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
            _must_be_same(case.subject.run(), want.output, f"generation {generation}")
            _must_be_empty(run)


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
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
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


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    """Whether two outputs are bit-identical."""
    return len(one) == len(other) and all(map(torch.equal, one, other))


def one_line(error: BaseException | None) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return (text if isinstance(error, ecad.EcadError) else f"{type(error).__name__}: {text}")[:240]


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
            _must_be_same(case.subject.run(), want.output, f"generation {generation}")
            _must_be_empty(run)


def _draw_parallel_sites_together(bits: np.ndarray, sites: tuple[tuple[str, str], ...]) -> None:
    """A block's outputs that only `proj_out` reads run with it, so that extrapolations use outputs that were computed."""
    places = {site: place for place, site in enumerate(sites)}
    for (block, component), place in places.items():
        prefix = component.removesuffix("proj_out")
        others = [places.get((block, prefix + name)) for name in ("attn", "proj_mlp", "gated_proj_mlp")]
        if component.endswith("proj_out") and others[0] is not None and any(o is not None for o in others[1:]):
            for other in others:
                if other is not None:
                    bits[:, other] = bits[:, place]


def _must_be_same(got: list[torch.Tensor], want: list[torch.Tensor], where: str) -> None:
    if not same(got, want):
        raise Wrong(f"{where}: differs from the interpreted one by {_distance(got, want)}")


def _distance(got: list[torch.Tensor], want: list[torch.Tensor]) -> str:
    if [tensor.shape for tensor in got] != [tensor.shape for tensor in want]:
        return "its shape"
    far = [
        float((one.double() - other.double()).abs().max()) for one, other in zip(got, want, strict=True) if one.numel()
    ]
    size = [float(other.double().abs().max()) for other in want if other.numel()]
    return f"{max(far, default=math.nan):.2g} of {max(size, default=math.nan):.2g}"


def _must_be_empty(run: Any, when: str = "after the generation") -> None:
    if run.stats.cached_bytes:
        raise Wrong(f"{run.stats.cached_bytes} bytes are still kept {when}")


def _traces(pipe: Any) -> Iterator[str]:
    """The attributes, overrides and hooks of the pipeline's parts, by name."""
    found = [f"pipeline.{name}" for name in vars(pipe)]
    for part, value in pipe.components.items():
        if isinstance(value, nn.Module):
            for path, module in value.named_modules():
                hooks = len(module._forward_pre_hooks), len(module._forward_hooks)
                found += [f"{part}.{path}.{name}" for name in vars(module)]
                found.append(f"{part}.{path}: {hooks} hooks")
        elif hasattr(value, "set_timesteps"):
            found += [f"{part}.{name}" for name, held in vars(value).items() if callable(held)]
    return iter(found)


@contextmanager
def _broken_off(steps: int) -> Iterator[None]:
    """Make any scheduler fail at one of its steps."""
    done = []

    def step(*_: Any) -> None:
        done.append(None)
        if len(done) == steps:
            raise _Stop

    with watched_schedulers(lambda _: None, step):
        yield


def _takes_callback(case: Case) -> bool:
    return "callback_on_step_end" in case.subject.parameters()


def _interrupts(pipe: Any, step: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    if step == 1:
        pipe._interrupt = True
    return tensors


def _ends_guidance(halves: bool, pipe: Any = None) -> dict[str, Any]:
    """A callback that sets the guidance scale to 1 and keeps the second half of batched inputs."""

    def end(pipe: Any, step: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step != 1:
            return {}
        pipe._guidance_scale = 1.0
        return {name: value.chunk(2)[1] for name, value in tensors.items()} if halves else {}

    wanted = [name for name in getattr(pipe, "_callback_tensor_inputs", ()) if name.startswith("prompt_")]
    return {"callback_on_step_end": end, "callback_on_step_end_tensor_inputs": wanted}


def _work(recording: Recording) -> int:
    """Records the arguments of denoisers."""
    return sum(math.prod(shape) for forward in recording.forwards for shape in forward.shapes)
