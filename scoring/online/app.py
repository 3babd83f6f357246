"""Build the FastAPI application of the endpoint: the routes of all dialects, behind the middleware.

A dialect is the routes and formats of one kind of client, such as Roboflow's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from anyio import to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sam_endpoint.model.errors import BadInput, EndpointError
from sam_endpoint.scoring.errors import Problem, problem_of
from sam_endpoint.scoring.online import page
from sam_endpoint.scoring.online.calls import Calls
from sam_endpoint.scoring.online.catalog import Catalog
from sam_endpoint.scoring.online.dialects import DIALECTS, dialect_of, respond
from sam_endpoint.scoring.online.dialects.base import Dialect
from sam_endpoint.scoring.online.dialects.label_studio.projects import Projects
from sam_endpoint.scoring.online.dialects.roboflow.logits_cache import LogitsCache
from sam_endpoint.scoring.online.metrics import Metrics
from sam_endpoint.scoring.online.middleware import GuardMiddleware
from sam_endpoint.scoring.online.middleware.auth import KEY_HEADERS
from sam_endpoint.scoring.online.middleware.root_path import RootPathMiddleware
from sam_endpoint.scoring.online.settings import EndpointSettings
from sam_endpoint.scoring.online.track_sessions import TrackSessions

DESCRIPTION = """
Segment images with Segment Anything (SAM, SAM 2 and SAM 3). The routes are grouped by the client whose requests they
accept. Every group uses the same models and returns errors in its client's own format.

- If the endpoint needs an API key, send it as `Authorization: Bearer KEY`, `X-API-Key: KEY`, `?api_key=KEY`, or as
  `"api_key"` in a JSON body.
- Coordinates are x, y in pixels. The origin is the top left corner of the image.
- The response header `x-answered-by` names the model that answered. `x-request-id` identifies the request in the log.
- Status 503 with `Retry-After` means that too many requests are in progress. The same request may succeed later.
"""
TAGS = [
    {"name": "Azure ML", "description": "The route of an Azure ML managed online endpoint."},
    {"name": "Roboflow", "description": "The SAM, SAM 2 and SAM 3 routes of Roboflow Inference."},
    {"name": "Livepeer", "description": "The segmentation route of Livepeer's AI gateway."},
    {"name": "CVAT", "description": "The request of CVAT's interactors, as nuclio functions accept it."},
    {"name": "Label Studio", "description": "The routes of a machine learning backend of Label Studio."},
    {"name": "Open Inference Protocol", "description": "The routes that clients of Triton and KServe use."},
    {"name": "samapi", "description": "The route for videos of samapi, the server of QuPath's extension for SAM."},
    {"name": "X-AnyLabeling", "description": "The routes of an X-AnyLabeling server."},
    {"name": "Tracking", "description": "Objects in a video, tracked from prompts. The response is streamed."},
    {"name": "MLflow", "description": "The route of MLflow's scoring server (`mlflow models serve`)."},
    {"name": "Status", "description": "State of the endpoint and its models."},
]
JSON = "application/json"
MAX_VALIDATION_ERRORS = 3  # validation errors in one response
# The types of pydantic's errors whose messages are fixed texts. Messages of other types may quote the value.
FIXED_MESSAGES = {
    "bool_parsing", "bool_type", "dict_type", "int_parsing", "int_type", "json_invalid", "list_type", "literal_error",
    "missing", "model_attributes_type", "model_type", "string_too_long", "string_type", "too_long", "too_short",
    "tuple_type",
}  # fmt: skip
HTTP_MESSAGES = {
    400: "the request body cannot be parsed as its content-type declares",
    404: "no such path; /docs lists the available paths",
    405: "this path does not support this method; /docs lists the supported methods",
}
EXPOSED_HEADERS = ("x-answered-by", "x-model-version", "x-request-id", "x-milliseconds", "retry-after")
ALLOWED_HEADERS = ("authorization", "content-encoding", "content-type", "x-request-id", *KEY_HEADERS)


def create(settings: EndpointSettings) -> FastAPI:
    """Build the application and load its default model.

    Args:
        settings: settings of the endpoint.

    Returns:
        An ASGI application for any ASGI server; `sam-endpoint serve` runs it with uvicorn.

    Raises:
        BadModel: the catalog or the default model cannot be used.
        BadData: the file of API keys cannot be read, or holds no key.
    """
    keys = settings.keys()
    metrics = Metrics()
    calls = Calls(settings, metrics)
    catalog = Catalog(settings)
    metrics.watch_catalog(catalog)
    catalog.get()
    app = FastAPI(
        title="Segment Anything endpoint",
        version="1",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        lifespan=_lifespan,
        docs_url=None,  # FastAPI's own pages load scripts from a CDN
        redoc_url=None,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
    )
    app.state.catalog, app.state.settings, app.state.logits_cache = catalog, settings, LogitsCache()
    app.state.projects = Projects()
    app.state.state_key = settings.state_key()
    app.state.track_sessions = TrackSessions(settings, len(keys), calls.new)
    metrics.watch_sessions(app.state.track_sessions)
    _add_status_routes(app, catalog, metrics)
    for dialect in DIALECTS:
        app.include_router(dialect.router, responses=_describe_errors(dialect))
    page.add_routes(app)
    for kind in (EndpointError, RecursionError):
        app.add_exception_handler(kind, _handle)
    app.add_exception_handler(RequestValidationError, _handle_invalid)
    app.add_exception_handler(HTTPException, _handle_http)
    routes = [*app.routes, *(route for dialect in DIALECTS for route in dialect.router.routes)]
    paths = frozenset(route.path for route in routes if isinstance(route, Route))
    app.add_middleware(GuardMiddleware, settings=settings, keys=keys, metrics=metrics, calls=calls, paths=paths)
    if (hosts := settings.served_hosts()) != ["*"]:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    if origins := settings.origins():
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        )
    if settings.root_path:
        app.add_middleware(RootPathMiddleware, prefix=settings.root_path)
    return app


def _describe_errors(dialect: Dialect) -> dict[int | str, dict[str, Any]]:
    """Return the error responses of a dialect's routes for the OpenAPI description."""

    def content(problem: Problem) -> dict[str, Any]:
        response = dialect.error_response(problem)
        text = bytes(response.body)
        return {
            str(response.media_type): {"example": json.loads(text) if response.media_type == JSON else text.decode()}
        }

    rejected = Problem.of_status(400, "row 0, column 'input_boxes': expected (prompts, 4) numbers, got a list of 3")
    overloaded = Problem.of_status(503, "too many requests are in progress; try again later")
    return {
        "4XX": {
            "description": "The request is rejected. The message names the place, what was expected and what came.",
            "content": content(rejected),
        },
        "5XX": {
            "description": "The endpoint is overloaded (503), exceeds a timeout (504) or has an internal error (500).",
            "content": content(overloaded),
        },
    }


def _add_status_routes(app: FastAPI, catalog: Catalog, metrics: Metrics) -> None:
    @app.get("/ping", tags=["Status"], summary="Check that the process responds")
    async def ping() -> Response:
        """Return status 200. `/ready` tells whether the models are loaded."""
        return Response("\n", media_type="application/json")

    @app.get("/health", tags=["Status"], summary="Check that the process responds")
    async def health() -> dict[str, str]:
        """Return status 200 and the fields that Label Studio expects of an ML backend."""
        return {"status": "UP", "model_class": "SegmentAnything"}

    @app.get("/version", tags=["Status"], summary="Get the version of MLflow")
    async def mlflow_version() -> Response:
        """Return the installed version of MLflow, as MLflow's scoring server does."""
        return Response(version("mlflow"), media_type="application/json")

    @app.get("/ready", include_in_schema=False)
    async def ready() -> Response:
        return JSONResponse({"ready": catalog.ready}, 200 if catalog.ready else 503)

    @app.get("/metrics", include_in_schema=False)
    def read_metrics() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/models", tags=["Status"], summary="List the models")
    async def models() -> list[dict[str, object]]:
        """Return one object for each model.

        Its fields: `name`; `default` (whether requests without a model name use it); `starter` (whether it is one of
        the small models that come with the package); `warm` (whether it is loaded); `bytes` (size of its weights);
        `names` (all its names); `stands_in_for` (names of other models for which it answers);
        `capabilities` (whether it takes points, boxes, text, exemplars and video); `thresholds` (its defaults of the
        params `concept_thresh` and `exemplar_thresh`); `origin` (its source and version). `bytes` and the last three
        are null until the model is loaded.
        """
        return catalog.describe()

    @app.post("/models/refresh", tags=["Status"], summary="Load new versions of registered models")
    def refresh() -> dict[str, object]:
        """Check the aliases of registered models, and serve the versions that they name now.

        The response lists the models that changed, with their versions before and now.
        """
        return {"replaced": catalog.refresh()}


def _handle(request: Request, error: Exception) -> Response:
    path = request.url.path
    if isinstance(error, BadInput):
        error = error.renamed(dialect_of(path).fields)
    return respond(path, problem_of(error))


def _handle_invalid(request: Request, error: Exception) -> Response:
    """Return pydantic's validation errors: the field and what was expected, without the value."""
    assert isinstance(error, RequestValidationError)
    reasons = []
    for fault in error.errors()[:MAX_VALIDATION_ERRORS]:
        place = ".".join(map(str, fault["loc"][1:])) or "body"
        reasons.append(f"{place}: {fault['msg'] if fault['type'] in FIXED_MESSAGES else 'Input is not as expected'}")
    path = request.url.path
    return respond(path, Problem.of_status(dialect_of(path).invalid_status, "; ".join(reasons)))


def _handle_http(request: Request, error: Exception) -> Response:
    """Return an error that Starlette raises: an unknown path or method, or a body that it cannot parse."""
    assert isinstance(error, HTTPException)
    message = HTTP_MESSAGES.get(error.status_code, HTTPStatus(error.status_code).phrase)
    response = respond(request.url.path, Problem.of_status(error.status_code, message))
    response.headers.update(error.headers or {})
    return response


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    # Each request in progress has its own thread, so that a request never waits for a thread. `in_flight` can be
    # exceeded, because a tenant below its equal share is always admitted. Twice `in_flight` threads are enough if
    # there are at most `in_flight` tenants.
    threads: int = 2 * app.state.settings.in_flight + 4
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads))
    to_thread.current_default_thread_limiter().total_tokens = threads
    asyncio.get_running_loop().run_in_executor(None, app.state.catalog.warm_up)
    refreshing = asyncio.create_task(_refresh(app.state.catalog, app.state.settings.refresh_seconds))
    expiring = asyncio.create_task(_expire(app.state.track_sessions))
    yield
    refreshing.cancel()
    expiring.cancel()


async def _refresh(catalog: Catalog, seconds: float) -> None:
    """Refresh the catalog every `seconds` seconds; never if `seconds` is 0."""
    while seconds:
        await asyncio.sleep(seconds)
        await asyncio.to_thread(catalog.refresh)


async def _expire(sessions: TrackSessions) -> None:
    """Close idle sessions, even if no further request for a session comes."""
    while True:
        await asyncio.sleep(sessions.seconds / 4)
        await asyncio.to_thread(sessions.expire)
