"""Parse multipart forms in memory and in a thread."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import Response

from sam_endpoint.model.call import Call
from sam_endpoint.scoring.online.context import context_of

CHUNK_BYTES = 2**16  # part of a form that is parsed between two checks of the deadline


class _FormParser(MultiPartParser):
    """Keeps all parts of a form in memory, where its body is already; a disk could be full or read-only."""

    spool_max_size = sys.maxsize


class FormRoute(APIRoute):
    """A route that parses its form in a thread, without temporary files.

    FastAPI would parse the form in the event loop, where some forms of 30 MB block all other requests for 6 s.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, preceded by a step that parses the form."""
        handle = super().get_route_handler()

        async def parse_and_handle(request: Request) -> Response:
            context = context_of(request.scope)

            def parse() -> FormData:
                with context.call.stage("parse"):
                    # The parser is a coroutine, so it needs an event loop: one of this thread.
                    return asyncio.run(_FormParser(request.headers, _chunks(context.body, context.call)).parse())

            if "boundary=" in request.headers.get("content-type", ""):
                try:
                    # `Request.form` returns this attribute if it is set.
                    request._form = await run_in_threadpool(parse)
                except MultiPartException:
                    raise HTTPException(400) from None
            return await handle(request)

        return parse_and_handle


async def _chunks(body: bytes, call: Call) -> AsyncGenerator[bytes]:
    """Yield a body in chunks. Raise an exception between two chunks if the request is over (see `Call.check`)."""
    for start in range(0, len(body), CHUNK_BYTES):
        call.check()
        yield body[start : start + CHUNK_BYTES]
