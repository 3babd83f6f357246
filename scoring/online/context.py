"""What the middleware knows about a request, for the routes."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from sam_endpoint.model.call import UNTRACKED, Call


@dataclass
class RequestContext:
    """Facts about one request, filled in as it passes the middleware.

    Attributes:
        request_id: id in the log and in the response's `x-request-id`.
        tenant: whose images and names the request sees; None until the API key is known.
        body: the whole body.
        call: cancelled when the client disconnects; times the stages of the work.
    """

    request_id: str = ""
    tenant: str | None = None
    body: bytes = b""
    call: Call = UNTRACKED


def context_of(scope: MutableMapping[str, Any]) -> RequestContext:
    """Return the context of a request, by its ASGI scope (a Starlette `Request` has it as `request.scope`)."""
    state = scope.setdefault("state", {})
    context: RequestContext = state.setdefault("context", RequestContext())
    return context
