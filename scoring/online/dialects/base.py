"""The interface that a client dialect implements."""

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
    """The routes, request formats and error format of one client family.

    To add a dialect:

    1. Write a module or a package beside this one that defines routes and a `Dialect`.
    2. Add the `Dialect` to `DIALECTS` in `dialects/__init__.py`, and a description of the router's tag to `TAGS` in
       `app.py`.

    A route finds what it needs in the request:

    - `request.app.state.catalog.get(name)` returns a `ServedModel`. Its `engine_for(context)` embeds and segments
      single images; its `scorer(context)` scores tables; its `headers` name the model in the response.
    - `context_of(request.scope)` returns the `RequestContext`: the body, the tenant (the owner of the API key) and the
      `Call`, which cancels, limits and times the work. Pass `context.call` to every method of the engine that accepts
      it.

    The middleware has already checked the API key, the content type and the size of the body. A route raises an
    `EndpointError` to reject a request; the application passes the error to `error_response`. Routes compute, so they
    are plain functions, which FastAPI runs in threads, or they use `run_in_threadpool`.

    Attributes:
        name: name of the client family.
        prefixes: the dialect owns every path that begins with one of these texts.
        router: the routes.
        error_response: converts a `Problem` to the response that the dialect's clients can read.
        fields: maps columns of the table contract (`input_points`, `input_boxes`, ...) to the names that the dialect's
            clients use. Error messages name the client's field.
        content_types: accepted media types of request bodies.
        invalid_status: HTTP status of a response to a body whose fields have wrong types.

    Example:
        >>> from sam_endpoint.model.images import ImageRef
        >>> def error_response(problem):
        ...     return JSONResponse({"reason": problem.message}, problem.status)
        >>> router = APIRouter(tags=["Mine"])
        >>> @router.post("/mine/size")
        ... def size(request: Request) -> Response:
        ...     served, context = request.app.state.catalog.get(), context_of(request.scope)
        ...     image = served.engine_for(context).embed(ImageRef.content(context.body), context.call)
        ...     return JSONResponse({"size": image.size}, headers=served.headers)
        >>> dialect = Dialect("mine", ("/mine/",), router, error_response, content_types=("image/png",))
        >>> dialect.owns("/mine/size")
        True
        >>> dialect.error_response(Problem.of_status(400, "image: expected a PNG")).body
        b'{"reason":"image: expected a PNG"}'
    """

    name: str
    prefixes: tuple[str, ...]
    router: APIRouter
    error_response: Callable[[Problem], Response]
    fields: Mapping[str, str] = field(default_factory=dict)
    content_types: tuple[str, ...] = ("application/json",)
    invalid_status: int = 400

    def owns(self, path: str) -> bool:
        """Return whether a path belongs to this dialect.

        Args:
            path: path of a request's URL, such as `/sam/embed_image`.
        """
        return path.startswith(self.prefixes)


class JsonRoute(APIRoute):
    """A route that parses its JSON body in a thread, within the limits of `json_text.parse`.

    FastAPI would parse the body in the event loop, where a large body blocks all other requests.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, preceded by the parsing of the body."""
        handle = super().get_route_handler()

        async def parse_and_handle(request: Request) -> Response:
            context = context_of(request.scope)

            def parse() -> Any:
                with context.call.stage("parse"):
                    return json_text.parse(context.body, "a JSON object")

            if request.method == "POST":
                # `Request.json` returns this attribute if it is set.
                request._json = await run_in_threadpool(parse)
            return await handle(request)

        return parse_and_handle


class ChunkedJsonResponse(JSONResponse):
    """A JSON response that is encoded in several steps.

    `json.dumps` holds Python's global lock while it encodes. Other threads run between two steps.
    """

    def render(self, content: Any) -> bytes:
        """Return the content as UTF-8 encoded JSON."""
        return json_text.dump(content)
