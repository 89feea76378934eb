"""Serve images under a cache schedule.

    pip install -r examples/requirements.txt
    python examples/serve_fastapi.py
    curl --json '{"prompt": "a 3d crab on a blue background", "seed": 3}' http://127.0.0.1:8000/images -o crab.png

A pipeline makes one batch at a time, so requests that come together wait for each other. For more, run several of these
processes, one a GPU, behind a proxy.
"""

from __future__ import annotations

import argparse
import io
import threading
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Response
from PIL import Image
from pydantic import BaseModel, Field

import ecad

SCHEDULE = Path(__file__).with_name("schedule.json")


class Request(BaseModel):
    prompt: str = Field(max_length=2000)
    seed: int = Field(0, ge=0, lt=2**63)


def create_app(
    schedule: Path = SCHEDULE, image_generator: str = "EmojiImageGenerator", weights: str | None = None
) -> FastAPI:
    """An app with one endpoint; the model is loaded, and its cache enabled, here and once."""
    app = FastAPI(title="ecad")
    generator = ecad.get_image_generator(image_generator, weights)
    ecad.enable_cache(generator.pipe, ecad.CacheSchedule.load(schedule))
    one_at_a_time = threading.Lock()

    # Not async: FastAPI runs it in a thread of its own, and other requests are listened to meanwhile.
    @app.post("/images", response_class=Response, responses={200: {"content": {"image/png": {}}}})
    def make(request: Request) -> Response:
        with one_at_a_time:
            image = generator.generate(generator.encode([request.prompt]), [request.seed])[0]
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG")
        return Response(png.getvalue(), media_type="image/png")

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schedule", type=Path, default=SCHEDULE)
    parser.add_argument("--image-generator", default="EmojiImageGenerator")
    parser.add_argument("--weights", help="hub id or folder of the pipeline")
    parser.add_argument("--port", type=int, default=8000)
    flags = parser.parse_args()
    uvicorn.run(create_app(flags.schedule, flags.image_generator, flags.weights), port=flags.port)
