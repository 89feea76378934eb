"""Sites of real diffusers classes."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from tiny_transformers import TRANSFORMERS
from tiny_unets import PIPELINES, made
from torch import nn

from ecad.errors import EcadError, ScheduleError
from ecad.runtime.cache import cached, enable_cache
from ecad.schedules import CacheSchedule, flux_sites, pixart_sites
from ecad.sites.discovery import denoisers, discover, named_sites
from ecad.sites.families import FAMILIES
from ecad.sites.names import DENOISER_SITES
from ecad.sites.readers import readers, running_order


def tiny_transformer(name: str) -> nn.Module:
    with torch.device("meta"):
        return getattr(diffusers, name)(**TRANSFORMERS[name])


def names(sites) -> tuple:
    return tuple((site.block, site.component) for site in sites)


def test_pixart_and_flux_sites_are_the_paper_s():
    assert names(discover(tiny_transformer("PixArtTransformer2DModel"))) == pixart_sites(2)
    assert names(discover(tiny_transformer("FluxTransformer2DModel"))) == flux_sites(2, 2)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_row_of_the_table_is_true(family):
    for name in family.transformers:
        transformer = tiny_transformer(name)
        sites = discover(transformer)
        for site in sites:
            assert transformer.get_submodule(site.path) is site.module
        for block_list in family.block_lists:
            found = {site.path.split(".")[2] for site in sites if site.path.split(".")[0] == block_list.path}
            assert found == set(block_list.components)


def test_a_component_that_a_block_lacks_is_no_site():
    sites = names(discover(tiny_transformer("SD3Transformer2DModel")))
    assert ("transformer_blocks.0", "attn2") in sites
    assert ("transformer_blocks.1", "attn2") not in sites
    assert ("transformer_blocks.0", "ff_context") in sites
    assert ("transformer_blocks.1", "ff_context") in sites
    assert ("transformer_blocks.2", "ff_context") not in sites  # the last block drops its text stream


def test_an_unknown_transformer_is_discovered_by_usual_names():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp, self.norm, self.attn, self.attn2 = nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2), None

    class Unheard(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.layers = nn.Linear(2, 2), nn.ModuleList([Block(), Block()])

    assert names(discover(Unheard())) == tuple(
        (f"layers.{index}", component) for index in (0, 1) for component in ("attn", "mlp")
    )


def test_a_subclass_is_of_its_parent_s_family():
    class Finetuned(diffusers.PixArtTransformer2DModel):
        pass

    with torch.device("meta"):
        model = Finetuned(**TRANSFORMERS["PixArtTransformer2DModel"])
    assert names(discover(model)) == pixart_sites(2)


def test_a_compiled_transformer_has_the_same_sites():
    transformer = tiny_transformer("PixArtTransformer2DModel")
    assert discover(torch.compile(transformer, backend="eager")) == discover(transformer)


def test_a_model_without_blocks_is_one_site():
    model = nn.Linear(2, 2)
    assert discover(model) == [("denoiser", "output", "", model)]
    assert named_sites(model, DENOISER_SITES) == discover(model)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_unet_is_one_site_whatever_its_pipeline_calls_it(name):
    pipe, _ = made(name)
    (found,) = denoisers(pipe).items()
    assert found[0] == ("prior" if name == "cascade prior" else "unet")
    assert names(discover(found[1])) == DENOISER_SITES
    assert CacheSchedule.for_model(pipe, 4).sites == DENOISER_SITES


def test_any_transformer_can_be_taken_as_a_whole():
    model = tiny_transformer("PixArtTransformer2DModel")
    assert named_sites(model, DENOISER_SITES) == [("denoiser", "output", "", model)]


def test_a_decoder_of_images_is_no_denoiser():
    decoder = nn.Linear(2, 2)
    with pytest.raises(EcadError, match="has no denoiser and cannot be cached"):
        denoisers(SimpleNamespace(decoder=decoder, vae=decoder))


def test_transformers_go_before_priors_and_have_a_name_each():
    first, second, prior = (nn.Linear(2, 2) for _ in range(3))
    pipe = SimpleNamespace(transformer=first, unconditional_transformer=second, prior=prior)
    assert denoisers(pipe) == {"transformer": first, "unconditional_transformer": second}


def test_readers_are_the_proj_outs_of_parallel_blocks():
    sites = flux_sites(1, 2)
    found = {sites[i]: sites[reader] for i, reader in enumerate(readers(sites)) if reader >= 0}
    assert found == {
        (f"single_{index}", f"single_{name}"): (f"single_{index}", "single_proj_out")
        for index in (0, 1)
        for name in ("attn", "proj_mlp")
    }
    assert (readers(pixart_sites(3)) == -1).all()
    assert readers([("x", "attn"), ("x", "proj_mlp"), ("x", "proj_out"), ("y", "proj_out")]).tolist() == [2, 2, -1, -1]


@pytest.mark.parametrize("kind", ["pixart", "flux"])
def test_the_running_order_is_the_one_a_forward_takes(make, kind):
    tiny = getattr(make, kind)()
    ran = []
    for site, module in tiny.components.items():
        module.register_forward_hook(lambda *_, site=site: ran.append(site))
    tiny.run(2)
    sites = tuple(tiny.components)
    assert ran == 2 * [sites[index] for index in running_order(sites)]


class Mixer(nn.Module):
    """A model that nobody has heard of: `token` and `channel` mix in each layer, `lift` comes before."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(4, 4)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"token": nn.Linear(6, 6), "channel": nn.Sequential(nn.Linear(4, 4), nn.GELU())})
            for _ in range(3)
        )

    def forward(self, hidden: torch.Tensor, timestep: float) -> torch.Tensor:
        hidden = self.lift(hidden) + timestep
        for layer in self.layers:
            hidden = hidden + layer["token"](hidden.mT).mT
            hidden = hidden + layer["channel"](hidden)
        return hidden


MIXER_SITES = tuple((f"layers.{index}", name) for index in range(3) for name in ("token", "channel"))


def mix(model: nn.Module, row=lambda _: nullcontext()) -> torch.Tensor:
    hidden = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(1))
    for step in range(3):
        with row(step), torch.no_grad():
            hidden = hidden - 0.5 * model(hidden, 1.0 - step / 3)
    return hidden


def test_an_odd_model_s_sites_are_named_by_hand():
    torch.manual_seed(0)
    model = Mixer()
    bits = np.random.default_rng(0).random((3, 6)) < 0.5
    bits[0] = True
    with cached(model, CacheSchedule(bits, MIXER_SITES)) as run:
        found = mix(model, run.step)
    assert (run.stats.computed, run.stats.reused) == (bits.sum(), 18 - bits.sum())

    # The same by hand: each row's outputs are kept in a list, and replayed by index.
    kept, row = {}, []
    for column, (block, component) in enumerate(MIXER_SITES):
        module = model.get_submodule(f"{block}.{component}")

        def replay(hidden, column=column, forward=module.forward):
            if bits[len(row) - 1, column]:
                kept[column] = forward(hidden)
            return kept[column].clone()

        module.forward = replay
    assert torch.equal(mix(model, lambda step: nullcontext(row.append(step))), found)


def test_sites_of_a_known_model_may_be_named_by_hand(make):
    tiny = make.pixart()
    schedule = tiny.random_schedule(seed=3)
    by_path = schedule.replace(sites=tuple((f"transformer_blocks.{b}", c) for b, c in schedule.sites))
    only_ff = CacheSchedule(
        schedule.recompute[:, 2::3], tuple(site for site in by_path.sites if site[1] == "ff"), name="ff"
    )
    and_the_rest = schedule.recompute.copy()
    and_the_rest[:, [i for i in range(9) if i % 3 != 2]] = True
    for named, numbered in ((by_path, schedule), (only_ff, schedule.replace(recompute=and_the_rest))):
        with cached(tiny.pipe, named):
            found = tiny.run()
        assert torch.equal(found, tiny.reference(numbered))


@pytest.mark.parametrize(
    ("sites", "told"),
    [
        (
            MIXER_SITES[:4],
            r"\(block layers.2, component token\): expected .* 3 blocks, found 2; name it in every",
        ),
        (
            (*MIXER_SITES, ("layers.0.channel", "0")),
            r"inside the site layers.0.channel .* component 0\); name one",
        ),
        ((("layers.0", "nose"),), "Mixer has no list of blocks .*; name the sites in the schedule by module path"),
    ],
)
def test_sites_named_by_hand_that_cannot_be_are_refused(sites, told):
    with pytest.raises(EcadError, match=told):
        enable_cache(Mixer(), CacheSchedule(np.ones((3, len(sites)), bool), sites))


def test_part_of_the_sites_that_are_found_is_no_schedule():
    model = tiny_transformer("SD3Transformer2DModel")
    sites = CacheSchedule.for_model(model, 3).sites[:-1]
    with pytest.raises(ScheduleError, match=r"SD3Transformer2DModel.*transformer_blocks.2.*for_model"):
        enable_cache(model, CacheSchedule(np.ones((3, len(sites)), bool), sites))


def test_a_pipeline_with_two_denoisers_begins_two_schedules():
    pipe = SimpleNamespace(transformer=nn.Linear(2, 2), transformer_2=nn.Linear(2, 2))
    with pytest.raises(EcadError, match=r"has 2 denoisers \(transformer, transformer_2\).*: pass one of them"):
        CacheSchedule.for_model(pipe, 3)


def test_blocks_within_blocks_are_found():
    with torch.device("meta"):
        model = diffusers.HiDreamImageTransformer2DModel(
            patch_size=2,
            num_layers=1,
            num_single_layers=1,
            num_attention_heads=2,
            attention_head_dim=8,
            caption_channels=[8, 8],
            text_emb_dim=8,
            axes_dims_rope=(2, 2, 4),
        )
    assert names(discover(model)) == tuple(
        (f"{kind}_stream_blocks.0.block", name)
        for kind, components in (("double", ("attn1", "ff_i", "ff_t")), ("single", ("attn1", "ff_i")))
        for name in components
    )


# Neither blocks with usual names nor images.
WITHOUT_SITES = {"RFD4ProteinaTransformer"}
LAYERS = ("num_layers", "num_single_layers", "n_layers", "num_text_blocks", "num_visual_blocks")


def test_every_transformer_of_diffusers_is_discovered():
    classes = {
        name: cls
        for name in dir(diffusers)
        if "Transformer" in name and isinstance(cls := getattr(diffusers, name), type) and issubclass(cls, nn.Module)
    }
    without, number = set(), 0
    for name, cls in classes.items():
        parameters = inspect.signature(cls.__init__).parameters
        few = {key: 2 for key in LAYERS if key in parameters and isinstance(parameters[key].default, int)}
        try:
            with torch.device("meta"):
                transformer = cls(**few)
        except (TypeError, ValueError, IndexError):
            continue  # has no defaults to be built from
        number += 1
        try:
            discover(transformer)
        except EcadError:
            without.add(name)
    assert without <= WITHOUT_SITES
    assert number >= 50
