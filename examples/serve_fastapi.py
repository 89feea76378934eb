"""Serve images under cache schedules: each request says how much faster it wants its image.

    pip install -r examples/requirements.txt
    python examples/serve_fastapi.py
    curl --json '{"prompt": "a 3d crab on a blue background", "speedup": 2}' http://127.0.0.1:8000/images -o crab.png
    curl http://127.0.0.1:8000/metrics

A pipeline makes one image at a time: requests wait for their turn, and when too many wait, the next one is refused
(503). A client that hangs up stops its image at the next step. For more, run several of these processes, one a GPU,
behind a proxy. docs/server.md says more.
"""

from __future__ import annotations

import argparse
import io
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

import ecad
from ecad.schedules import heuristics
from ecad.sites.discovery import one_denoiser


class Cancelled(Exception):
    """The client is gone."""


class Busy(Exception):
    """Too many requests wait."""


class Server:
    """One pipeline, its tiers, and what it has done.

    Args:
        generator: makes the images.
        front: of this generator's schedules; every tier of a request is picked from it.
        most_waiting: requests that may wait for their turn.
    """

    def __init__(self, generator: Any, front: ecad.Front, most_waiting: int = 8) -> None:
        self.generator, self.front, self.most_waiting = generator, front, most_waiting
        self.images: Counter[tuple[str, str]] = Counter()
        self.seconds: Counter[str] = Counter()
        self.waiting = 0
        self._turn, self._count = threading.Lock(), threading.Lock()
        self._run = ecad.enable_cache(generator.pipe, front, speedup=1)

    def make(self, prompt: str, seed: int, speedup: float | None, gone: threading.Event) -> bytes:
        """A PNG of a prompt.

        Args:
            speedup: how many times fewer MACs, at least; None for the uncached image.
            gone: set when nobody waits for the image any more.

        Raises:
            EcadError: no schedule of the front is that cheap.
            Busy: too many requests wait.
            Cancelled: the client is gone.
        """
        schedule = None if speedup is None else self.front.pick(speedup=speedup)
        with self._in_turn(), self._counted("none" if speedup is None else f"{speedup:g}"), self._stopped_by(gone):
            self._run.switch(schedule)
            image = self.generator.generate(self.generator.encode([prompt]), [seed])[0]
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG")
        return png.getvalue()

    def metrics(self) -> str:
        """What has been done, in the text format of Prometheus."""
        lines = [f'ecad_images_total{{speedup="{tier}",outcome="{end}"}} {n}' for (tier, end), n in self.images.items()]
        lines += [f'ecad_seconds_total{{speedup="{tier}"}} {seconds:.6f}' for tier, seconds in self.seconds.items()]
        return "\n".join([*lines, f"ecad_waiting {self.waiting}"]) + "\n"

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        with self._count:
            if self.waiting >= self.most_waiting:
                raise Busy
            self.waiting += 1
        try:
            self._turn.acquire()
        finally:
            with self._count:
                self.waiting -= 1
        try:
            yield
        finally:
            self._turn.release()

    @contextmanager
    def _counted(self, tier: str) -> Iterator[None]:
        began, outcome = time.perf_counter(), "failed"
        try:
            yield
            outcome = "made"
        except Cancelled:
            outcome = "cancelled"
            raise
        finally:
            self.images[tier, outcome] += 1
            self.seconds[tier] += time.perf_counter() - began

    @contextmanager
    def _stopped_by(self, gone: threading.Event) -> Iterator[None]:
        def check(*_: Any) -> None:
            if gone.is_set():
                raise Cancelled

        check()
        hook = one_denoiser(self.generator.pipe).register_forward_pre_hook(check)
        try:
            yield
        finally:
            hook.remove()


def example_front(generator: Any) -> ecad.Front:
    """Whole steps at even distances. `ecad calibrate` and `ecad optimize` find better ones."""
    from ecad.cost import count_macs, uncached_macs
    from ecad.schedules.front import Point

    sites = ecad.CacheSchedule.for_model(generator.pipe, generator.steps).sites
    made = [heuristics.every_n(sites, generator.steps, n).replace(forecast=n > 1) for n in (1, 2, 3, 4)]
    macs = [count_macs(one, generator.architecture) / uncached_macs(one, generator.architecture) for one in made]
    points = [Point(one, cost, -float(n)) for n, (one, cost) in enumerate(zip(made, macs, strict=True))]
    return ecad.Front("every few steps", points, scorer="rank")


def create_app(server: Server) -> Any:
    """The FastAPI app around a server."""
    import asyncio

    from fastapi import FastAPI, HTTPException, Response
    from pydantic import BaseModel, Field
    from starlette.requests import Request

    class Wish(BaseModel):
        prompt: str = Field(max_length=2000)
        seed: int = Field(0, ge=0, lt=2**63)
        speedup: float | None = Field(None, ge=1)

    app = FastAPI(title="ecad")

    async def images(wish: Wish, request: Request) -> Response:
        gone = threading.Event()
        work = asyncio.create_task(asyncio.to_thread(server.make, wish.prompt, wish.seed, wish.speedup, gone))
        while not (await asyncio.wait([work], timeout=0.2))[0]:
            if await request.is_disconnected():
                gone.set()
        try:
            return Response(work.result(), media_type="image/png")
        except ecad.EcadError as error:
            raise HTTPException(422, str(error)) from None
        except Busy:
            raise HTTPException(503, "too many requests wait", {"Retry-After": "5"}) from None
        except Cancelled:
            return Response(status_code=499)

    # FastAPI reads the types; those of a function in a function cannot be read from text.
    images.__annotations__.update(wish=Wish, request=Request)
    app.post("/images", response_class=Response)(images)
    app.get("/metrics", response_class=Response)(lambda: Response(server.metrics(), media_type="text/plain"))
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--front", type=Path, help="a front's file; every second, third, fourth step otherwise")
    parser.add_argument("--image-generator", default="EmojiImageGenerator")
    parser.add_argument("--weights", help="hub id or folder of the pipeline")
    parser.add_argument("--port", type=int, default=8000)
    flags = parser.parse_args()
    import uvicorn

    generator = ecad.get_image_generator(flags.image_generator, flags.weights)
    front = ecad.Front.load(flags.front) if flags.front else example_front(generator)
    uvicorn.run(create_app(Server(generator, front)), port=flags.port)
