"""The interface that every dialect implements."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from sam_endpoint.scoring import json_text
from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.context import context_of


@dataclass(frozen=True)
class Dialect:
    """How one client family speaks to the endpoint.

    Attributes:
        name: the client family.
        prefixes: beginnings of the paths that belong to it.
        router: its routes; they translate requests into calls of an Engine or Scorer, and the results back.
        shape: turns an error into the response that its clients read.
        fields: its names for columns of the table contract, used in error messages.
        content_types: the media types of its requests' bodies.
    """

    name: str
    prefixes: tuple[str, ...]
    router: APIRouter
    shape: Callable[[Problem], Response]
    fields: Mapping[str, str] = field(default_factory=dict)
    content_types: tuple[str, ...] = ("application/json",)

    def owns(self, path: str) -> bool:
        """Return whether a path belongs to this dialect."""
        return path.startswith(self.prefixes)


class JsonRoute(APIRoute):
    """A route whose JSON body is parsed in a thread, within the limits of `json_text.parse`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, which finds the body parsed."""
        handle = super().get_route_handler()

        async def parse_and_handle(request: Request) -> Response:
            context = context_of(request.scope)

            def parse() -> Any:
                with context.call.stage("parse"):
                    return json_text.parse(context.body, "a JSON object")

            if request.method == "POST":
                request._json = await run_in_threadpool(parse)  # where FastAPI keeps the result of `Request.json`
            return await handle(request)

        return parse_and_handle


class JsonAnswer(JSONResponse):
    """A JSON response that is written object by object."""

    def render(self, content: Any) -> bytes:
        """Return the text."""
        return json_text.dump(content)
