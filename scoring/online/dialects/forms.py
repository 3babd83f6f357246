"""Parse multipart forms in memory and in a thread."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request
from fastapi.routing import APIRoute
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import Response

from sam_endpoint.model.call import Call
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.pacing import MAX_WAIT

CHUNK_BYTES = 2**14  # part of a form that is parsed between two checks of the deadline
MAX_BUSY_SECONDS = 0.002  # time of the processor after which parsing pauses while a model computes
MAX_PARTS = 64  # maximum number of files in a form, and of other fields; Starlette takes 0.3 ms for each file


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
            is_computing = request.app.state.catalog.is_computing

            def parse(boundary: bytes) -> FormData:
                with context.call.stage("parse"):
                    chunks = _chunks(context.body, b"\r\n--" + boundary, context.call, is_computing)
                    parser = _FormParser(request.headers, chunks, max_files=MAX_PARTS, max_fields=MAX_PARTS)
                    return asyncio.run(parser.parse())  # a coroutine needs an event loop: one of this thread

            boundary = parse_options_header(request.headers.get("content-type", ""))[1].get(b"boundary")
            if boundary is not None:
                try:
                    # `Request.form` returns this attribute if it is set.
                    request._form = await run_in_threadpool(parse, boundary)
                except MultiPartException:
                    raise HTTPException(400) from None
            return await handle(request)

        return parse_and_handle


async def _chunks(body: bytes, delimiter: bytes, call: Call, is_computing: Callable[[], bool]) -> AsyncGenerator[bytes]:
    """Yield the body of a form in chunks.

    Args:
        body: the body.
        delimiter: line break, two hyphens and the boundary of the form.
        call: the request's `Call`.
        is_computing: returns whether a model computes. The parser is written in Python. If it did not pause, each
            operator of the model would wait for Python's global lock.

    Raises:
        MultiPartException: a delimiter is followed by something else than a line break or two hyphens. The parser reads
            such a form byte by byte, which takes 6 s for 30 MB. RFC 2046 forbids delimiters in the data. It allows
            spaces after a delimiter, but no client sends them.
        ClientDisconnected, DeadlineExceeded: as `Call.check` does.
    """
    position, paused = 0, time.thread_time()
    for start in range(0, len(body), CHUNK_BYTES):
        call.check()
        if time.thread_time() - paused > MAX_BUSY_SECONDS and is_computing():
            time.sleep(MAX_WAIT)
            paused = time.thread_time()
        end = start + CHUNK_BYTES
        while (found := body.find(delimiter, position, end + len(delimiter))) >= 0:
            position = found + len(delimiter)
            if body[position : position + 2] not in (b"\r\n", b"--"):
                raise MultiPartException("expected a line break or two hyphens after each boundary")
        position = max(position, end)
        yield body[start:end]
