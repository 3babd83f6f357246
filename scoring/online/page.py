"""The page to click on, at `/`, and the API's, at `/docs`: plain files, nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

FILES = Path(__file__).with_name("page")
SWAGGER = Path(fastapi_offline.__file__).with_name("static")
SAMPLES = Path(__file__).resolve().parents[2] / "samples"
POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'"


def add(app: FastAPI) -> None:
    """Serves the page, its files, and the sample pictures where they are at hand."""

    @app.get("/", include_in_schema=False)
    def index() -> Response:
        return FileResponse(FILES / "index.html", headers={"content-security-policy": POLICY})

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url="page/swagger/swagger-ui-bundle.js",
            swagger_css_url="page/swagger/swagger-ui.css",
            swagger_favicon_url="data:,",
        )

    app.mount("/page/swagger", StaticFiles(directory=SWAGGER), name="swagger")
    app.mount("/page/samples", StaticFiles(directory=SAMPLES, check_dir=False), name="samples")
    app.mount("/page", StaticFiles(directory=FILES), name="page")
