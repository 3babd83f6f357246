"""The simplest server that a user would write: every request runs transformers, and nothing is cached.

Usage: python -m benchmarks.plain_server NAME PORT [ATTENTION]

ATTENTION is one of transformers' implementations of attention (default: the one that `from_pretrained` chooses).
"""

from __future__ import annotations

import base64
import sys
from typing import Any

import uvicorn
from fastapi import Body, FastAPI

from benchmarks import subjects
from benchmarks.plain import Plain


def create(name: str, attention: str | None = None) -> FastAPI:
    """Return the application for a checkpoint."""
    plain = Plain(subjects.checkpoint(name), attention)
    app = FastAPI()

    @app.post("/score")
    def score(body: dict[str, Any] = Body()) -> list[dict[str, Any]]:  # noqa: B008
        return plain.answer(base64.b64decode(body["image"]), [body["box"]])

    return app


if __name__ == "__main__":
    uvicorn.run(create(sys.argv[1], *sys.argv[3:]), port=int(sys.argv[2]), log_level="warning")
