"""The endpoint: one FastAPI app with the routes of every dialect, behind the guards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version

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
from sam_endpoint.scoring.online.dialects.label_studio.projects import Projects
from sam_endpoint.scoring.online.dialects.roboflow.logits_cache import LogitsCache
from sam_endpoint.scoring.online.metrics import Metrics
from sam_endpoint.scoring.online.middleware import GuardMiddleware
from sam_endpoint.scoring.online.middleware.auth import KEY_HEADERS
from sam_endpoint.scoring.online.middleware.root_path import RootPathMiddleware
from sam_endpoint.scoring.online.settings import EndpointSettings

MAX_VALIDATION_ERRORS = 3  # reported of one request
# pydantic's kinds of errors whose messages are fixed texts; those of other kinds may repeat the value.
FIXED_MESSAGES = {
    "bool_parsing", "bool_type", "dict_type", "int_parsing", "int_type", "json_invalid", "list_type", "literal_error",
    "missing", "model_attributes_type", "model_type", "string_too_long", "string_type", "too_long", "too_short",
    "tuple_type",
}  # fmt: skip
HTTP_MESSAGES = {
    400: "the request's body cannot be read as its content-type says",
    404: "no such path; /docs lists those that exist",
    405: "this path does not answer this method; /docs lists those that it answers",
}
EXPOSED_HEADERS = ("x-answered-by", "x-model-version", "x-request-id", "x-milliseconds", "retry-after")
ALLOWED_HEADERS = ("authorization", "content-encoding", "content-type", "x-request-id", *KEY_HEADERS)


def create(settings: EndpointSettings) -> FastAPI:
    """Return the app with its default model loaded.

    Raises:
        BadModel: the catalog or its default model cannot be used.
        BadData: the file of API keys cannot be read.
    """
    keys = settings.keys()
    metrics = Metrics()
    calls = Calls(settings, metrics)
    catalog = Catalog(settings)
    metrics.follow(catalog)
    catalog.get()
    app = FastAPI(
        title="Segment Anything endpoint",
        version="1",
        description="Masks for points and boxes, in the words of whichever client asks.",
        lifespan=_lifespan,
        docs_url=None,  # FastAPI's own pages load scripts from a content network
        redoc_url=None,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
    )
    app.state.catalog, app.state.settings, app.state.logits_cache = catalog, settings, LogitsCache()
    app.state.projects = Projects()
    _add_status_routes(app, catalog, metrics)
    for dialect in DIALECTS:
        app.include_router(dialect.router)
    page.add(app)
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
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        )
    if settings.root_path:
        app.add_middleware(RootPathMiddleware, prefix=settings.root_path)
    return app


def _add_status_routes(app: FastAPI, catalog: Catalog, metrics: Metrics) -> None:
    @app.get("/ping")
    async def ping() -> Response:
        """Answer while the process works."""
        return Response("\n", media_type="application/json")

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Answer while the process works, in the words that Label Studio expects of an ML backend."""
        return {"status": "UP", "model_class": "SegmentAnything"}

    @app.get("/version")
    async def mlflow_version() -> Response:
        """Return the version of MLflow, as its scoring server does."""
        return Response(version("mlflow"), media_type="application/json")

    @app.get("/ready", include_in_schema=False)
    async def ready() -> Response:
        return JSONResponse({"ready": catalog.ready}, 200 if catalog.ready else 503)

    @app.get("/metrics", include_in_schema=False)
    def read_metrics() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/models", tags=["models"])
    async def models() -> list[dict[str, object]]:
        """List the models, the names they answer to, which are warm, and where they came from."""
        return catalog.describe()


def _handle(request: Request, error: Exception) -> Response:
    path = request.url.path
    if isinstance(error, BadInput):
        error = error.renamed(dialect_of(path).fields)
    return respond(path, problem_of(error))


def _handle_invalid(request: Request, error: Exception) -> Response:
    """Return what pydantic found wrong: the place and what was expected, without the value."""
    assert isinstance(error, RequestValidationError)
    reasons = []
    for fault in error.errors()[:MAX_VALIDATION_ERRORS]:
        place = ".".join(map(str, fault["loc"][1:])) or "body"
        reasons.append(f"{place}: {fault['msg'] if fault['type'] in FIXED_MESSAGES else 'Input is not as expected'}")
    return respond(request.url.path, Problem.of_status(400, "; ".join(reasons)))


def _handle_http(request: Request, error: Exception) -> Response:
    """Return an error of Starlette's: a path or method that is not served, or a body that it cannot parse."""
    assert isinstance(error, HTTPException)
    message = HTTP_MESSAGES.get(error.status_code, HTTPStatus(error.status_code).phrase)
    response = respond(request.url.path, Problem.of_status(error.status_code, message))
    response.headers.update(error.headers or {})
    return response


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    # As many threads as requests may be in flight: an admitted request waits for its batch and for nothing else.
    # Twice as many, since keys below their share are admitted even if all places are taken.
    threads: int = 2 * app.state.settings.in_flight + 4
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads))
    to_thread.current_default_thread_limiter().total_tokens = threads
    asyncio.get_running_loop().run_in_executor(None, app.state.catalog.warm_up)
    yield
