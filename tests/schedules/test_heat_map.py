from __future__ import annotations

import io
from textwrap import dedent

import numpy as np
import pytest
from rich.console import Console

from ecad.schedules import CacheSchedule, flux_sites, heuristics, pixart_sites


def picture(text: str) -> str:
    return dedent(text).strip("\n")


def test_shades_tell_none_few_half_most_and_all_apart() -> None:
    bits = np.array([[True] * 4, [False] * 4, [True, False, False, False], [True, True, False, False]])
    bits = np.concatenate([bits, [[True, True, True, False]]])
    sites = tuple(("layers.0", name) for name in "abcd")
    assert CacheSchedule(bits, sites, name="five shades").show(width=40) == picture(
        """
        five shades
        5 steps × 1 blocks, 20 bits, 50.0% recomputed
                 0  1  2  3  4
        layers.0 ███···░░░▒▒▒▓▓▓  50%
             all ███···░░░▒▒▒▓▓▓  50%
        recomputed: · none  ░ few  ▒ half  ▓ most  █ all
        """
    )


def test_one_map_a_component_side_by_side_as_far_as_they_fit() -> None:
    schedule = heuristics.tgate(pixart_sites(2), 6, gate=4, sp_interval=3)
    assert schedule.show(width=80, by_component=True) == picture(
        """
        tgate_gate_4_sp_interval_3_fi_interval_1_warmup_2
        6 steps × 2 blocks, 36 bits, 83.3% recomputed
          attn1   attn2   ff
          0    5  0    5  0    5
        0 ██·███  ████··  ██████
        1 ██·███  ████··  ██████
        recomputed: · none  ░ few  ▒ half  ▓ most  █ all
        """
    )
    narrow = schedule.show(width=18, by_component=True).splitlines()[2:-1]
    assert narrow[0] == "  attn1   attn2"
    assert narrow[4] == "  ff"


def test_blocks_of_another_kind_get_maps_of_their_own() -> None:
    lines = heuristics.none(flux_sites(1, 1), 2).show(by_component=True).splitlines()
    assert lines[2].split() == ["full_attn", "full_ff", "full_ff_context"]
    assert lines[5].split() == ["single_attn", "single_proj_mlp", "single_proj_out"]


@pytest.mark.parametrize("sites", [pixart_sites(), flux_sites()], ids=["pixart", "flux"])
@pytest.mark.parametrize("steps", [1, 8, 20, 50, 1000])
@pytest.mark.parametrize("by_component", [False, True])
def test_fits_a_terminal(sites: tuple[tuple[str, str], ...], steps: int, by_component: bool) -> None:
    rng = np.random.default_rng(steps)
    schedule = CacheSchedule(rng.random((steps, len(sites))) < 0.5, sites)
    lines = schedule.show(width=80, by_component=by_component).splitlines()
    assert max(map(len, lines)) <= 80
    if not by_component:
        assert len(lines) == len(schedule.blocks) + 5


def test_one_bit_in_a_thousand_is_not_shown_as_none_or_all() -> None:
    bits = np.zeros((1000, 1), dtype=bool)
    bits[3] = True
    for table, glyph in ((bits, "░"), (~bits, "▓")):
        row = CacheSchedule(table, (("a", "b"),)).show(width=40).splitlines()[3]
        assert row.split()[1][0] == glyph


def test_long_module_paths_keep_their_end() -> None:
    sites = (("a.very.long.module.path.to.transformer_blocks.17", "attn"),)
    assert "…o.transformer_blocks.17 ███" in CacheSchedule([[True]], sites).show()


def test_rich_prints_it_in_colour_and_as_wide_as_the_console() -> None:
    schedule = heuristics.every_n(pixart_sites(2), 20, 2)
    stream = io.StringIO()
    Console(file=stream, width=50, force_terminal=True, color_system="standard").print(schedule)
    assert "\x1b[" in stream.getvalue()
    plain = io.StringIO()
    Console(file=plain, width=50).print(schedule)
    assert plain.getvalue() == schedule.show(width=50) + "\n"
