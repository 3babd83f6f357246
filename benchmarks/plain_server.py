"""The plainest server one would write: transformers for each request, nothing kept. `NAME PORT`"""

from __future__ import annotations

import base64
import sys
from typing import Any

import uvicorn
from fastapi import Body, FastAPI

from benchmarks import subjects
from benchmarks.plain import Plain


def app(name: str) -> FastAPI:
    plain = Plain(subjects.checkpoint(name))
    found = FastAPI()

    @found.post("/score")
    def score(asked: dict[str, Any] = Body()) -> list[dict[str, Any]]:  # noqa: B008
        return plain.answer(base64.b64decode(asked["image"]), [asked["box"]])

    return found


if __name__ == "__main__":
    uvicorn.run(app(sys.argv[1]), port=int(sys.argv[2]), log_level="warning")
