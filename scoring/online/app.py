"""The endpoint: one FastAPI app with the routes of every dialect, behind the guards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio import to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse, Response

from sam_endpoint.model.errors import BadInput, EndpointError
from sam_endpoint.model.mlflow.compat import accept_untyped_columns
from sam_endpoint.scoring.errors import Problem, problem_of
from sam_endpoint.scoring.online import page
from sam_endpoint.scoring.online.catalog import Catalog
from sam_endpoint.scoring.online.dialects import DIALECTS, dialect_of, respond
from sam_endpoint.scoring.online.dialects.roboflow.logits_cache import LogitsCache
from sam_endpoint.scoring.online.metrics import Metrics
from sam_endpoint.scoring.online.middleware import GuardMiddleware
from sam_endpoint.scoring.online.settings import EndpointSettings

MAX_VALIDATION_ERRORS = 3  # reported of one request


def create(settings: EndpointSettings) -> FastAPI:
    """Return the app with its default model loaded.

    Raises:
        BadModel: the catalog or its default model cannot be used.
    """
    accept_untyped_columns()
    metrics = Metrics()
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
    )
    app.state.catalog, app.state.settings, app.state.logits_cache = catalog, settings, LogitsCache()
    _add_status_routes(app, catalog, metrics)
    for dialect in DIALECTS:
        app.include_router(dialect.router)
    page.add(app)
    for kind in (EndpointError, RecursionError):
        app.add_exception_handler(kind, _handle)
    app.add_exception_handler(RequestValidationError, _handle_invalid)
    app.add_middleware(GuardMiddleware, settings=settings, metrics=metrics)
    return app


def _add_status_routes(app: FastAPI, catalog: Catalog, metrics: Metrics) -> None:
    @app.get("/ping")
    @app.get("/health")
    def ping() -> Response:
        """Answer while the process works."""
        return Response("\n", media_type="application/json")

    @app.get("/version")
    def mlflow_version() -> Response:
        """Return the version of MLflow, as its scoring server does."""
        return Response(version("mlflow"), media_type="application/json")

    @app.get("/ready", include_in_schema=False)
    def ready() -> Response:
        return JSONResponse({"ready": catalog.ready}, 200 if catalog.ready else 503)

    @app.get("/metrics", include_in_schema=False)
    def read_metrics() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/models", tags=["models"])
    def models() -> list[dict[str, object]]:
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
    reasons = [
        f"{'.'.join(map(str, item['loc'][1:])) or 'body'}: {item['msg']}"
        for item in error.errors()[:MAX_VALIDATION_ERRORS]
    ]
    return respond(request.url.path, Problem.of_status(400, "; ".join(reasons)))


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    # As many threads as requests may be in flight: an admitted request waits for its batch and for nothing else.
    threads: int = app.state.settings.in_flight + 4
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads))
    to_thread.current_default_thread_limiter().total_tokens = threads
    asyncio.get_running_loop().run_in_executor(None, app.state.catalog.warm_up)
    yield
