"""A few dozen random requests from two threads; `tools/compatibility/stress.py` serves thousands."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import stress
import torch
from served import KINDS

import ecad


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def requests(count: int, **changes) -> list:
    chance = random.Random(3)
    return [replace(stress.draw(chance), **changes) for _ in range(count)]


def test_requests_are_of_every_kind():
    drawn = requests(300)
    assert {request.kind for request in drawn} == set(KINDS)
    assert {(request.ends or ("whole",))[0] for request in drawn} == {"whole", "error", "flag"}
    assert sum(request.visitor is not None for request in drawn) > 10


def test_weights_and_adapters_change_the_image():
    plain = replace(requests(1)[0], schedule=None, ends=None, visitor=None, weights=0, lora=0)
    images = stress.references([plain, replace(plain, weights=1), replace(plain, lora=1), replace(plain, seed=2)])
    assert len(set(images.values())) == 4


def test_another_image_is_a_fault():
    request = replace(requests(1)[0], schedule=1, ends=None, visitor=None)
    expected = stress.references([request])
    server = stress.Server(KINDS[request.kind].make())
    assert stress.serve(server, request, expected) is None
    server.served.pipe.transformer.requires_grad_(False)
    next(server.served.pipe.transformer.parameters()).data.mul_(1.5)
    assert stress.serve(server, request, expected) == "another image"


def test_a_request_leaves_the_schedule_in_place_for_the_next():
    request = replace(requests(1)[0], schedule=1, ends=None, visitor=None)
    server = stress.Server(KINDS[request.kind].make())
    expected = stress.references([request, replace(request, schedule=None)])
    stress.serve(server, request, expected)
    run = server.run
    stress.serve(server, request, expected)
    assert server.run is run
    stress.serve(server, replace(request, schedule=None), expected)
    assert server.run is None
    ecad.disable_cache(server.served.pipe)
