"""Sites of real diffusers classes."""

from __future__ import annotations

import diffusers
import pytest
import torch
from tiny_transformers import TRANSFORMERS
from torch import nn

from ecad.errors import EcadError
from ecad.runtime.discovery import discover
from ecad.runtime.families import FAMILIES, readers, running_order
from ecad.schedules import flux_sites, pixart_sites


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


def test_a_model_without_blocks_is_refused():
    with pytest.raises(EcadError, match="Linear cannot be cached: expected a list of blocks"):
        discover(nn.Linear(2, 2))


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
