"""The endpoint: MLflow's scoring server with every other dialect's routes joined to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

from anyio import to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from starlette.responses import JSONResponse, Response

from model.errors import BadInput, BadParameter, Busy, Gone, UnknownImage
from scoring.online import azureml, invocations, livepeer, page, roboflow
from scoring.online.catalog import Catalog, UnknownModel
from scoring.online.gate import HUNG_UP, Gate
from scoring.online.metrics import Metrics
from scoring.online.settings import Settings

logger = logging.getLogger(__name__)
DIALECTS: dict[str, ModuleType] = {
    "/score": azureml,
    "/sam/": roboflow,
    "/sam2/": roboflow,
    "/segment-anything-2": livepeer,
}


def create(settings: Settings) -> FastAPI:
    """The app, its default model loaded. Raises ValueError for a catalog or a model that cannot be used."""
    metrics = Metrics()
    catalog = Catalog(settings, metrics.stage)
    metrics.follow(catalog)
    default = catalog.get()
    app: FastAPI = scoring_server.init(default.pyfunc)
    app.title, app.version = "Segment Anything endpoint", "1"
    app.description = "Masks for points and boxes, in the words of whichever client asks."
    app.state.catalog, app.state.settings = catalog, settings
    app.router.lifespan_context = _lifespan
    # MLflow's route would send the stack trace with an error; its middleware ends what takes a minute, however large.
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") != "/invocations"]
    app.user_middleware.clear()
    for dialect in (*dict.fromkeys(DIALECTS.values()), invocations):
        app.include_router(dialect.router)

    @app.get("/ready", include_in_schema=False)
    def ready() -> Response:
        return JSONResponse({"ready": catalog.ready}, 200 if catalog.ready else 503)

    @app.get("/metrics", include_in_schema=False)
    def read_metrics() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/models", tags=["models"])
    def models() -> list[dict[str, object]]:
        """The models served, the names they answer to, and which are warm."""
        return catalog.described()

    page.add(app)
    for kind, status in STATUSES.items():
        app.add_exception_handler(kind, _answer(status))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(invocations.Refused, invocations.refused)
    app.add_middleware(
        Gate,
        keys=settings.keys(),
        in_flight=settings.in_flight,
        body_bytes=settings.body_bytes,
        body_seconds=settings.body_seconds,
        refuse=refuse,
        metrics=metrics,
    )
    return app


STATUSES: dict[type[Exception], int] = {
    UnknownImage: 404,
    BadInput: 400,
    BadParameter: 400,
    UnknownModel: 404,
    azureml.BadRequest: 400,
    Busy: 503,
    Gone: HUNG_UP,
    MlflowException: 400,
    RecursionError: 400,
}


def refuse(path: str, status: int, message: str) -> Response:
    """An error in the shape of the dialect that the path belongs to; MLflow's for every other."""
    if dialect := _dialect(path):
        return dialect.refuse(status, message)
    codes = {400: "INVALID_PARAMETER_VALUE", 404: "RESOURCE_DOES_NOT_EXIST", 401: "UNAUTHENTICATED"}
    return JSONResponse({"error_code": codes.get(status, "INTERNAL_ERROR"), "message": message}, status)


def _dialect(path: str) -> Any:
    return next((dialect for prefix, dialect in DIALECTS.items() if path.startswith(prefix)), None)


def _answer(status: int) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, MlflowException):
            return refuse(request.url.path, error.get_http_status_code(), error.message)
        if isinstance(error, BadInput):
            fields = getattr(_dialect(request.url.path), "FIELDS", {})
            error.column = fields.get(error.column, error.column)
        message = "the request is nested too deep" if isinstance(error, RecursionError) else str(error)
        return refuse(request.url.path, status, message)

    return answer


def _invalid(request: Request, error: Exception) -> Response:
    """What pydantic finds wrong: where, and what was expected, without the value."""
    assert isinstance(error, RequestValidationError)
    found = [f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in error.errors()[:3]]
    return refuse(request.url.path, 400, "; ".join(found))


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    # As many threads as requests may be in flight: one that is let in waits for its batch and for nothing else.
    threads: int = app.state.settings.in_flight + 4
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads))
    to_thread.current_default_thread_limiter().total_tokens = threads
    asyncio.get_running_loop().run_in_executor(None, app.state.catalog.warm_up)
    yield
