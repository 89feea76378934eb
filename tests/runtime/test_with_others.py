"""What else may be switched on: quantisation, adapters, layerwise casting, group offload, another cache.

Tests of a package run where it is installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import diffusers
import numpy as np
import pytest
import torch
from diffusers.hooks.group_offloading import ModuleGroup
from tiny_pipelines import Tiny, make_flux

import ecad
from ecad.runtime.compatibility import configuration_of
from ecad.schedules.by_sigma import as_whole_steps
from ecad.utils.fingerprints import part_fingerprint, weights_fingerprint


def whole_steps(tiny: Tiny, computed: tuple[int, ...] = (0, 2)) -> ecad.CacheSchedule:
    bits = np.zeros((4, len(tiny.components)), dtype=bool)
    bits[list(computed)] = True
    return tiny.schedule(bits).replace(forecast=True)


def quantise(tiny: Tiny) -> None:
    torchao = pytest.importorskip("torchao.quantization")
    torchao.quantize_(tiny.pipe.transformer, torchao.Int8WeightOnlyConfig())


def adapt(tiny: Tiny) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    linear = ["to_q", "to_k", "to_v", "proj_mlp", "proj_out", "net.2"]
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=linear, init_lora_weights=False)
    tiny.pipe.transformer.add_adapter(config, "one")
    find_replaced(tiny)


def find_replaced(tiny: Tiny) -> None:
    """A linear layer that was replaced may be a component itself: FLUX's `proj_mlp` and `proj_out`."""
    inside = dict(tiny.pipe.transformer.named_modules())
    for (block, name), _ in list(tiny.components.items()):
        if block.startswith("single_"):
            path = f"single_transformer_blocks.{block.removeprefix('single_')}.{name.removeprefix('single_')}"
            tiny.components[block, name] = inside[path]


def replace_linears(tiny: Tiny, new: Callable[[torch.nn.Linear], torch.nn.Module | None]) -> None:
    for path, layer in list(tiny.pipe.transformer.named_modules()):
        if type(layer) is torch.nn.Linear and (other := new(layer)) is not None:
            tiny.pipe.transformer.set_submodule(path, other)
    find_replaced(tiny)


def quantise_quanto(tiny: Tiny) -> None:
    quanto = pytest.importorskip("optimum.quanto")
    quanto.quantize(tiny.pipe.transformer, weights=quanto.qint8)
    quanto.freeze(tiny.pipe.transformer)
    find_replaced(tiny)


def quantise_bitsandbytes(tiny: Tiny, name: str = "Linear8bitLt", **settings: object) -> None:
    layers = pytest.importorskip("bitsandbytes.nn")

    def new(old: torch.nn.Linear) -> torch.nn.Module:
        layer = getattr(layers, name)(old.in_features, old.out_features, old.bias is not None, **settings)
        layer.load_state_dict(old.state_dict())
        quantised: torch.nn.Module = layer.to("cpu")
        return quantised

    replace_linears(tiny, new)


def quantise_to_8_bits(tiny: Tiny) -> None:
    quantise_bitsandbytes(tiny, has_fp16_weights=False)


def quantise_to_nf4(tiny: Tiny) -> None:
    quantise_bitsandbytes(tiny, "Linear4bit", compute_dtype=torch.float32, quant_type="nf4")


def quantise_gguf(tiny: Tiny) -> None:
    gguf = pytest.importorskip("gguf")
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter

    kind = gguf.GGMLQuantizationType.Q8_0

    def new(old: torch.nn.Linear) -> torch.nn.Module | None:
        if old.in_features % 32:  # the size of a block of values
            return None
        layer = GGUFLinear(old.in_features, old.out_features, old.bias is not None, compute_dtype=torch.float32)
        values = torch.from_numpy(gguf.quantize(old.weight.detach().numpy(), kind))
        layer.weight, layer.bias = GGUFParameter(values, quant_type=kind), old.bias
        return layer

    replace_linears(tiny, new)


def cast(tiny: Tiny) -> None:
    tiny.pipe.transformer.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)


def offload(tiny: Tiny, kind: str = "block_level") -> None:
    blocks = {"num_blocks_per_group": 1} if kind == "block_level" else {}
    tiny.pipe.transformer.enable_group_offload(torch.device("cpu"), offload_type=kind, **blocks)


def offload_leaves(tiny: Tiny) -> None:
    offload(tiny, "leaf_level")


QUANTISED = [quantise, quantise_quanto, quantise_to_8_bits, quantise_to_nf4, quantise_gguf]
MODIFIED = [*QUANTISED, adapt, cast, offload, offload_leaves]


@pytest.mark.parametrize("modify", MODIFIED)
@pytest.mark.parametrize("when", ["before", "after"])
def test_images_are_what_the_schedule_says(tiny: Tiny, modify: Callable[[Tiny], None], when: str) -> None:
    if modify is adapt and len(tiny.components) == 9:
        pytest.skip("the adapter is written for FLUX")
    schedule = tiny.random_schedule()
    if when == "before":
        modify(tiny)
    run = ecad.enable_cache(tiny.pipe, schedule)
    if when == "after":
        tiny.run()
        modify(tiny)
    found = [tiny.run() for _ in range(2)]
    run.disable()
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], tiny.run())
    assert torch.equal(found[0], tiny.reference(schedule))


@pytest.mark.parametrize("modify", MODIFIED)
def test_whole_steps_are_the_same_either_way(modify: Callable[[Tiny], None]) -> None:
    tiny = make_flux()
    modify(tiny)
    schedule = whole_steps(tiny)
    with ecad.cached(tiny.pipe, schedule):
        expected = tiny.run()
    with ecad.cached(tiny.pipe, as_whole_steps(schedule)) as run:
        assert torch.equal(tiny.run(), expected)
        assert run.stats.computed == 2
    with ecad.cached(tiny.pipe, as_whole_steps(whole_steps(tiny, (0, 1, 2, 3)))):
        assert torch.equal(tiny.run(), tiny.run())


class Loads:
    """Counts what group offload brings to the device, group by group."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.modules: list[torch.nn.Module] = []
        onload = ModuleGroup.onload_

        def counted(group: ModuleGroup) -> None:
            self.modules += group.modules
            onload(group)

        monkeypatch.setattr(ModuleGroup, "onload_", counted)

    def of(self, module: torch.nn.Module) -> int:
        return sum(one is module for one in self.modules)


def test_group_offload_loads_nothing_in_a_step_that_computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = make_flux()
    offload(tiny)
    loads = Loads(monkeypatch)
    tiny.run()
    every = len(loads.modules)
    for schedule in (whole_steps(tiny), as_whole_steps(whole_steps(tiny))):
        loads.modules.clear()
        with ecad.cached(tiny.pipe, schedule):
            tiny.run()
        assert len(loads.modules) == every // 2 > 0


def test_group_offload_of_leaves_does_not_load_a_reused_component(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = make_flux()
    offload_leaves(tiny)
    schedule = tiny.random_schedule()
    loads = Loads(monkeypatch)
    with ecad.cached(tiny.pipe, schedule) as run:
        tiny.run()
        actions = run.plans["transformer"].actions
    for place, ((block, name), module) in enumerate(tiny.components.items()):
        leaf = module if isinstance(module, torch.nn.Linear) else list(module.modules())[-1]
        if isinstance(leaf, torch.nn.Linear):
            assert loads.of(leaf) == int((actions[:, place] <= 1).sum()), (block, name)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_cache_of_diffusers_beside_is_named_once(flux: Tiny, when: str) -> None:
    schedule = flux.random_schedule()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if when == "before":
            flux.pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=0.1))
        ecad.enable_cache(flux.pipe, schedule)
        if when == "after":
            flux.pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=0.1))
        for _ in range(2):
            flux.run()
    messages = [str(one.message) for one in told if one.category is ecad.EcadWarning]
    assert messages == [
        "diffusers' FirstBlockCacheConfig caches transformer too, and one cache sees what the other left: disable one"
    ]


def test_provenance_sees_an_adapter_and_its_strength() -> None:
    tiny = make_flux()
    transformer = tiny.pipe.transformer
    seen = []
    for change in (
        lambda: None,
        lambda: adapt(tiny),
        lambda: transformer.set_adapters(["one"], [0.5]),
        transformer.disable_adapters,
    ):
        change()
        seen.append([configuration_of(transformer), weights_fingerprint(transformer), part_fingerprint(transformer)])
    bare, adapted, weaker, off = seen
    assert all(one != other for one, other in zip(bare, adapted, strict=True))
    assert all(one != other for one, other in zip(adapted, weaker, strict=True))
    assert off[0] == bare[0]


@pytest.mark.parametrize("quantised", QUANTISED)
def test_a_fingerprint_sees_quantised_weights(quantised: Callable[[Tiny], None]) -> None:
    one, other = make_flux(seed=0), make_flux(seed=1)
    bare = weights_fingerprint(one.pipe.transformer)
    quantised(one)
    quantised(other)
    found = [weights_fingerprint(tiny.pipe.transformer) for tiny in (one, other)]
    parts = [part_fingerprint(tiny.pipe.transformer) for tiny in (one, other)]
    assert len({bare, *found}) == 3
    assert parts[0] != parts[1]
    again = make_flux(seed=0)
    quantised(again)
    assert weights_fingerprint(again.pipe.transformer) == found[0]
