"""The gRPC service of the Open Inference Protocol. It converts each call to a request for a REST route.

The request passes through the whole application inside this process. So gRPC and REST have the same keys, limits,
fairness, cancellation and log.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import grpc
from starlette.types import ASGIApp, Message

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.online.dialects.open_inference import tensors
from sam_endpoint.scoring.online.dialects.open_inference.rest import HEADER_LENGTH
from sam_endpoint.scoring.online.middleware.auth import KEY_HEADERS, KEY_NEEDED, Keys, key_in_headers

SERVICE = "inference.GRPCInferenceService"
MESSAGE_OVERHEAD = 2**20  # maximum size of a message without its tensors, in bytes
OPEN_CALLS = ("ServerLive", "ServerReady")  # these calls need no key
FORWARDED = ("authorization", "x-request-id", *KEY_HEADERS)
STATUS_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
messages: Any = grpc.protos("sam_endpoint/scoring/online/dialects/open_inference/open_inference.proto")


class GrpcServer:
    """Serves gRPC calls on a separate port, in the event loop in which `start` runs.

    Args:
        app: the endpoint's application.
        address: host and port to listen on, such as `127.0.0.1:8001` or `[::1]:8001`.
        max_bytes: maximum size of a request.
        max_calls: maximum number of concurrent calls. Further calls get RESOURCE_EXHAUSTED.
        keys: the accepted API keys.
    """

    def __init__(self, app: ASGIApp, address: str, max_bytes: int, max_calls: int, keys: Keys) -> None:
        self._service, self._address, self._keys = _Service(app), address, keys
        self._options = [("grpc.max_receive_message_length", max_bytes + MESSAGE_OVERHEAD), ("grpc.so_reuseport", 0)]
        self._max_calls = max_calls
        self._server: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Start listening, and return the port. Raises BadData if the address cannot be used."""
        server = grpc.aio.server(
            options=self._options,
            maximum_concurrent_rpcs=self._max_calls,
            interceptors=[_KeyInterceptor(self._keys)] if self._keys else None,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._service.handlers()),))
        try:
            port = server.add_insecure_port(self._address)
        except RuntimeError:
            raise BadData(f"--grpc-port: {self._address} cannot be opened; choose another port, or 0 for any") from None
        await server.start()
        self._server = server
        return int(port)

    async def stop(self, seconds: float) -> None:
        """Accept no further calls, and wait some seconds until calls in progress have finished."""
        if self._server is not None:
            await self._server.stop(seconds)


class _KeyInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no type hints
    """Rejects a call without an accepted key, before the server receives the message of the call."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Return the call's handler, or a handler that rejects the call."""
        metadata = {str(name): value for name, value in details.invocation_metadata or () if isinstance(value, str)}
        is_open = details.method.rpartition("/")[2] in OPEN_CALLS
        if is_open or self._keys.tenant(key_in_headers(metadata) or b"") is not None:
            return await continuation(details)
        # A handler of a request stream receives nothing until it asks for a message, and `_reject` never asks.
        return grpc.stream_unary_rpc_method_handler(_reject)


async def _reject(requests: Any, context: grpc.aio.ServicerContext) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, KEY_NEEDED.message)


class _Service:
    """The handlers of the gRPC calls. Each handler sends a REST request to the application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Return the handler of each call, by the call's name."""
        calls = (
            self.ServerLive,
            self.ServerReady,
            self.ModelReady,
            self.ServerMetadata,
            self.ModelMetadata,
            self.ModelInfer,
        )
        return {
            call.__name__: grpc.unary_unary_rpc_method_handler(
                call,
                getattr(messages, f"{call.__name__}Request").FromString,
                getattr(messages, f"{call.__name__}Response").SerializeToString,
            )
            for call in calls
        }

    async def ServerLive(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        return messages.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        status, _, _ = await self._send(context, "GET", "/v2/health/ready")
        return messages.ServerReadyResponse(ready=status == 200)

    async def ModelReady(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        await self._get(context, f"/v2/models/{request.name}/ready")
        return messages.ModelReadyResponse(ready=True)

    async def ServerMetadata(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        return messages.ServerMetadataResponse(**await self._get(context, "/v2"))

    async def ModelMetadata(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        return messages.ModelMetadataResponse(**await self._get(context, f"/v2/models/{request.name}"))

    async def ModelInfer(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        text, binary = rest_request(request)
        headers = {HEADER_LENGTH: str(len(text)), "content-type": "application/octet-stream"}
        path = f"/v2/models/{request.model_name}/infer"
        status, received, body = await self._send(context, "POST", path, headers, text + binary)
        if status != 200:
            await _abort(context, status, body)
        length = int(received[HEADER_LENGTH])
        answer = json.loads(body[:length])
        (output,) = answer["outputs"]
        response = messages.ModelInferResponse(
            model_name=answer["model_name"],
            model_version=answer["model_version"],
            id=answer.get("id", ""),
            raw_output_contents=[body[length:]],
        )
        response.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
        return response

    async def _get(self, context: grpc.aio.ServicerContext, path: str) -> dict[str, Any]:
        """Return the JSON object at a path. If the status is not 200, abort the call."""
        status, _, body = await self._send(context, "GET", path)
        if status != 200:
            await _abort(context, status, body)
        content: dict[str, Any] = json.loads(body)
        return content

    async def _send(
        self,
        context: grpc.aio.ServicerContext,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request to the application, and return the status, the headers and the body of the response."""
        metadata = {str(name): value for name, value in context.invocation_metadata() or ()}
        names = dict(headers or {}) | {name: str(metadata[name]) for name in FORWARDED if name in metadata}
        encoded = [(name.encode(), value.encode("latin-1", "replace")) for name, value in names.items()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"grpc"), *encoded],
            "client": None,
            "server": None,
        }
        disconnected, sent = asyncio.Event(), False
        started: Message = {}
        parts: list[bytes] = []

        async def receive() -> Message:
            nonlocal sent
            if sent:
                await disconnected.wait()
                return {"type": "http.disconnect"}
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                started.update(message)
            else:
                parts.append(message.get("body", b""))

        answering = asyncio.ensure_future(self.app(scope, receive, send))
        try:
            await asyncio.shield(answering)
        except asyncio.CancelledError:
            disconnected.set()  # the application cancels the work for this call
            raise
        received = {name.decode(): value.decode("latin-1") for name, value in started["headers"]}
        return started["status"], received, b"".join(parts)


def rest_request(request: Any) -> tuple[bytes, bytes]:
    """Convert a `ModelInferRequest` to a REST request, and return the JSON text and the binary data of the request."""
    raw = list(request.raw_input_contents)
    inputs, binary = [], []
    for number, tensor in enumerate(request.inputs):
        contents = tensor.contents
        if number < len(raw):
            data = raw[number]
        elif tensor.datatype == "BOOL":
            data = bytes(contents.bool_contents)
        else:
            data = tensors.join(contents.bytes_contents)
        binary.append(data)
        inputs.append(
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {**_parameters(tensor.parameters), "binary_data_size": len(data)},
            }
        )
    content = {
        "inputs": inputs,
        "parameters": {**_parameters(request.parameters), "binary_data_output": True},
        "outputs": [{"name": output.name, "parameters": {"binary_data": True}} for output in request.outputs],
        **({"id": request.id} if request.id else {}),
    }
    return json.dumps(content).encode(), b"".join(binary)


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {name: parameter.WhichOneof("parameter_choice") for name, parameter in parameters.items()}
    return {name: getattr(parameters[name], choice) for name, choice in chosen.items() if choice}


async def _abort(context: grpc.aio.ServicerContext, status: int, body: bytes) -> None:
    """End a call with the message of an error response."""
    await context.abort(STATUS_CODES.get(status, grpc.StatusCode.INTERNAL), json.loads(body)["error"])
