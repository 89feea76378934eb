from __future__ import annotations

import pytest

from ecad import ScheduleError
from ecad.schedules import flux_sites, pixart_sites
from ecad.sites.names import check_sites


def test_gene_order_is_the_published_one() -> None:
    assert len(pixart_sites()) * 20 == 1680
    assert len(flux_sites()) * 20 == 3420
    assert pixart_sites()[-4:] == (("26", "ff"), ("27", "attn1"), ("27", "attn2"), ("27", "ff"))
    assert flux_sites()[56:58] == (("18", "full_ff_context"), ("single_0", "single_attn"))
    assert [component for _, component in flux_sites(1, 1)] == [
        "full_attn",
        "full_ff",
        "full_ff_context",
        "single_attn",
        "single_proj_mlp",
        "single_proj_out",
    ]


@pytest.mark.parametrize(
    "sites",
    [
        pixart_sites(),
        flux_sites(),
        flux_sites(0, 3),
        (("0", "attn2"), ("1", "attn2")),
        (("0", "mine"), ("1", "mine"), ("single_0", "attn1")),
        (("b", "z"), ("b", "a"), ("a", "y"), ("single_transformer_blocks.0", "attn")),
    ],
)
def test_fine(sites: tuple[tuple[str, str], ...]) -> None:
    assert check_sites(map(list, sites)) == sites


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        ([], "no sites"),
        ([("0",)], "not a site"),
        ([("0", "a", "b")], "not a site"),
        ([("0", 1)], "not a site"),
        ([("", "a")], "not a site"),
        ([("a\n", "b")], "not a site"),
        (
            [("a", "custom_compute_ff")],
            r"custom_compute_\* is not a component \(block a, component custom_",
        ),
        ([("a", "x"), ("a", "x")], r"this site occurs twice \(block a, component x\)"),
        ([("a", "x"), ("b", "x"), ("a", "y")], r"a block's sites are not together \(block a, component y\)"),
        ([("1", "ff"), ("0", "ff")], "out of order: expected block 0, found block 1"),
        ([("0", "ff"), ("2", "ff")], "expected block 1, found block 2"),
        ([("0", "ff"), ("01", "ff")], "expected block 1, found block 01"),
        ([("single_0", "ff"), ("0", "ff")], "expected block 0, found block single_0"),
        ([("0", "ff"), ("layers.1", "ff")], "expected block 1, found block layers.1"),
        ([("0", "ff"), ("0", "attn1")], r"components differ .* \(block 0\): expected attn1, ff, found ff, attn1"),
        ([("0", "ff"), ("1", "attn1")], r"components differ .* \(block 1\): expected ff, found attn1; .* module path"),
    ],
)
def test_refused(sites: list[tuple[str, ...]], words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        check_sites(sites)
