from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest
from finished_study import evaluator, model

from ecad.errors import EcadError
from ecad.genetic.live import live_page
from ecad.genetic.search import search


def get(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return answer.read().decode()


def test_the_page_follows_the_search(tmp_path: Path) -> None:
    with live_page(tmp_path) as url:
        assert url.startswith("http://127.0.0.1:")
        assert "not started" in get(url)
        assert get(f"{url}version") == "none"
        assert get(f"{url}state") == "Running."
        search(model(), evaluator(), tmp_path, generations=1, population_size=5).close()
        first, version = get(url), get(f"{url}version")
        assert "gen_000_cand_000" in first
        assert f'"live": "{version}"' in first
        assert "connect-src 'self'" in first
        assert get(url) == first
        search(model(), evaluator(), tmp_path, generations=2, population_size=5).close()
        assert get(f"{url}version") != version
        assert get(url) != first
    with pytest.raises(urllib.error.URLError):
        get(url)


def test_only_this_machine_is_answered_and_only_the_page(tmp_path: Path) -> None:
    with live_page(tmp_path) as url:
        for path, host, status in (("", "example.org:80", 403), ("study.sqlite", "localhost:80", 404)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                get(url + path, Host=host)
            assert refused.value.code == status


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with (
        live_page(tmp_path) as url,
        pytest.raises(EcadError, match=r"^`port` \d+ cannot be used"),
        live_page(tmp_path, int(url.rstrip("/").rpartition(":")[2])),
    ):
        pass
