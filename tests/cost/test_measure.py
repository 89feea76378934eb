"""The count of one forward, held against torch's own FLOP counter, which counts two a MAC."""

from __future__ import annotations

from dataclasses import replace

import diffusers
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ecad.cost import Architecture, known_architectures
from ecad.cost.inputs import forward_inputs
from ecad.cost.measure import measure, measure_architecture
from ecad.errors import EcadError
from ecad.sites.discovery import discover

PIXART = Architecture(
    "TinyPixArt",
    {
        "_class_name": "PixArtTransformer2DModel",
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "cross_attention_dim": 16,
        "caption_channels": 12,
        "sample_size": 8,
    },
    height=64,
    width=64,
    text_tokens=7,
    guidance_pair=True,
)
FLUX = Architecture(
    "TinyFlux",
    {
        "_class_name": "FluxTransformer2DModel",
        "num_layers": 2,
        "num_single_layers": 3,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "joint_attention_dim": 12,
        "pooled_projection_dim": 10,
        "in_channels": 16,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 6, 6),
    },
    height=96,
    width=64,
    text_tokens=9,
    guidance_pair=False,
)
LATTE = Architecture(
    "TinyLatte",
    {
        "_class_name": "LatteTransformer3DModel",
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "in_channels": 4,
        "cross_attention_dim": 16,
        "caption_channels": 12,
        "sample_size": 8,
        "patch_size": 2,
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "video_length": 3,
    },
    height=64,
    width=64,
    text_tokens=7,
    guidance_pair=True,
)
TINY = pytest.mark.parametrize("architecture", [PIXART, FLUX, LATTE], ids=lambda known: known.image_generator)


def build(architecture: Architecture) -> torch.nn.Module:
    torch.manual_seed(0)
    return getattr(diffusers, architecture.transformer["_class_name"]).from_config(architecture.transformer).eval()


def real_inputs(architecture: Architecture) -> dict:
    """The same inputs as the meta forward's, but with numbers in them."""
    shapes = forward_inputs(architecture, architecture.height, architecture.width, architecture.text_tokens)
    return torch.utils._pytree.tree_map_only(torch.Tensor, lambda meta: torch.rand(meta.shape), shapes)


def flops(transformer: torch.nn.Module, inputs: dict) -> FlopCounterMode:
    """The oracle. Its table has no entry for the CPU's fused attention, so attention is taken apart here too."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        transformer(**inputs)
    return counter


@TINY
def test_every_site_and_the_rest_equal_the_flops_of_a_real_forward(architecture):
    transformer = build(architecture)
    by_module = flops(transformer, real_inputs(architecture)).get_flop_counts()
    measured = measure_architecture(architecture, architecture.height, architecture.width, architecture.text_tokens)
    macs = (measured.layers + measured.attention).tolist()
    root = type(transformer).__name__
    expected = [sum(by_module[f"{root}.{site.path}"].values()) / 2 for site in discover(transformer)]
    assert macs[:-1] == expected
    assert min(expected) > 0
    assert sum(macs) == sum(by_module["Global"].values()) / 2


@TINY
def test_batched_products_are_attention_and_all_else_is_layers(architecture):
    counts = flops(build(architecture), real_inputs(architecture)).get_flop_counts()["Global"]
    products = sum(count for op, count in counts.items() if op is torch.ops.aten.bmm) / 2
    measured = measure_architecture(architecture, architecture.height, architecture.width, architecture.text_tokens)
    assert measured.attention.sum() == products > 0
    assert measured.attention[-1] == 0
    assert measured.layers.sum() == sum(counts.values()) / 2 - products


@pytest.mark.parametrize("known", known_architectures(), ids=lambda known: f"{known.image_generator}-{known.height}")
def test_the_kept_architectures_equal_the_oracle(known):
    shallow = {"num_layers": 1} | ({"num_single_layers": 1} if "num_single_layers" in known.transformer else {})
    known = replace(known, transformer={**known.transformer, **shallow})
    measured = measure_architecture(known, known.height, known.width, known.text_tokens)
    with torch.device("meta"):
        inputs = forward_inputs(known, known.height, known.width, known.text_tokens)
        assert 2 * (measured.layers + measured.attention).sum() == flops(build(known), inputs).get_total_flops()


class Odd(torch.nn.Module):
    """A denoiser of one block with the layers that PixArt and FLUX lack."""

    def __init__(self, attn1: torch.nn.Module) -> None:
        super().__init__()
        block = torch.nn.Module()
        block.attn1, block.ff = attn1, torch.nn.Conv2d(4, 6, 3, groups=2, bias=False)
        self.transformer_blocks = torch.nn.ModuleList([block])
        self.up = torch.nn.ConvTranspose2d(6, 8, 2, stride=2, groups=2)
        self.out = torch.nn.Linear(8, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        block = self.transformer_blocks[0]
        x = self.up(block.ff(x + block.attn1(x)))
        tokens = x.flatten(2).transpose(1, 2)
        return self.out(tokens) + torch.baddbmm(tokens[..., :5], tokens, tokens.new_ones(len(x), 8, 5))


def test_grouped_and_transposed_convolutions_and_loose_products():
    inputs = {"x": torch.rand(2, 4, 8, 8)}
    measured = measure(Odd(torch.nn.Identity()), inputs)
    conv = 2 * 6 * 6 * 6 * (2 * 3 * 3)
    up = 2 * 6 * 6 * 6 * (4 * 2 * 2)
    linear = 2 * 12 * 12 * 8 * 5
    assert measured.layers.tolist() == [0, conv, up + linear]
    assert measured.attention.tolist() == [0, 0, linear]
    assert 2 * (conv + up + 2 * linear) == flops(Odd(torch.nn.Identity()), inputs).get_total_flops()


class Fused(torch.nn.Module):
    """A processor that calls a fused attention kernel by itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._scaled_dot_product_efficient_attention(x, x, x, None, False)[0]


def test_an_operation_that_is_not_counted_is_an_error_and_no_hook_stays():
    model = Odd(Fused())
    with pytest.raises(EcadError, match=r"efficient_attention.* cannot be counted"):
        measure(model.to("meta"), {"x": torch.empty(2, 4, 8, 8, device="meta")})
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("size", [(64, 70), (0, 64), (-64, 64)])
def test_a_size_that_is_no_whole_number_of_patches(size):
    with pytest.raises(EcadError, match=f"{size[0]}x{size[1]} does not fit TinyPixArt: .* positive multiples of 16"):
        measure_architecture(PIXART, *size, 7)


def test_an_unknown_transformer_class():
    with pytest.raises(EcadError, match="'MyTransformer' are not known: expected one of PixArtTransformer2DModel"):
        measure_architecture(replace(PIXART, transformer={"_class_name": "MyTransformer"}), 64, 64, 7)


def test_a_loaded_transformer_describes_itself():
    transformer = build(PIXART)
    loaded = replace(PIXART, transformer=transformer.config)
    assert (
        measure_architecture(loaded, 64, 64, 7).layers.tolist()
        == measure_architecture(PIXART, 64, 64, 7).layers.tolist()
    )


def test_operators_of_other_libraries_are_not_counted_as_nothing() -> None:
    @torch.library.custom_op("ecad_test::multiply", mutates_args=())
    def multiply(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left @ right

    class Closed(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return multiply(hidden, hidden)

    with pytest.raises(EcadError, match=r"ecad_test.multiply.* cannot be counted"):
        measure(Closed(), {"hidden": torch.ones(2, 2)})
