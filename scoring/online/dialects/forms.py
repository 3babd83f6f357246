"""Parse multipart forms in memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request
from fastapi.routing import APIRoute
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import Response


class _FormParser(MultiPartParser):
    """Keeps all parts of a form in memory, where its body is already; a disk could be full or read-only."""

    spool_max_size = sys.maxsize


class FormRoute(APIRoute):
    """A route whose form is parsed without temporary files."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, preceded by a step that parses the form."""
        handle = super().get_route_handler()

        async def parse_and_handle(request: Request) -> Response:
            if "boundary=" in request.headers.get("content-type", ""):
                try:
                    # `Request.form` returns this attribute if it is set.
                    request._form = await _FormParser(request.headers, request.stream()).parse()
                except MultiPartException:
                    raise HTTPException(400) from None
            return await handle(request)

        return parse_and_handle
