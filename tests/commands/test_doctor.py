from __future__ import annotations

import json
from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]


def test_doctor_says_what_a_bug_report_needs(run: Run) -> None:
    code, out, _ = run("doctor", "--json")
    assert code == 0
    found = json.loads(out)
    assert set(found) == {"system", "packages", "extras", "devices", "weights", "disk"}
    assert found["packages"]["torch"][0].isdigit()
    assert found["weights"]["EmojiImageGenerator"].startswith("found: ")
    assert found["weights"]["FluxImageGenerator"] == "not downloaded: black-forest-labs/FLUX.1-dev"
    assert "GiB free" in found["disk"]["working folder"]
    assert "cores" in found["devices"]["cpu"]
    code, text, _ = run("doctor")
    assert code == 0
    assert all(f"\n{title}\n" in f"\n{text}" for title in found)
