"""Hand what the middleware learns about a request over to the routes."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from sam_endpoint.model.call import UNTRACKED, Call


@dataclass
class RequestContext:
    """Facts about one request. The middleware fills them in; the routes read them.

    Attributes:
        request_id: id in the log and in the response header `x-request-id`.
        tenant: id of the owner of the request's API key. A request finds only the cached images, image ids and logits
            of its own tenant. None until the middleware has checked the API key; "" for everybody if the endpoint has
            no API keys.
        body: the whole request body, decompressed.
        rejected: whether the status of the response is 400 or higher.
        call: the request's `Call`. The middleware cancels it when the client disconnects; the work for the request
            passes it along to check for cancellation, limits and the deadline, and to time the stages of the work.
    """

    request_id: str = ""
    tenant: str | None = None
    body: bytes = b""
    rejected: bool = False
    call: Call = UNTRACKED


def context_of(scope: MutableMapping[str, Any]) -> RequestContext:
    """Return the context of a request.

    Args:
        scope: ASGI scope of the request. A Starlette `Request` has it as `request.scope`.

    Example:
        >>> scope = {}
        >>> context_of(scope).request_id = "a1"
        >>> context_of(scope).request_id
        'a1'
    """
    state = scope.setdefault("state", {})
    context: RequestContext = state.setdefault("context", RequestContext())
    return context
