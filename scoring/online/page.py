"""Serve the annotation page at `/` and the API documentation at `/docs`, without any file from another server."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

FILES = Path(__file__).with_name("page")
SWAGGER = Path(fastapi_offline.__file__).with_name("static")
SAMPLES = Path(__file__).resolve().parents[2] / "samples"
POLICY = "default-src 'self'; img-src 'self' blob: data:; worker-src 'self'; frame-ancestors 'none'"
HEADERS = {"content-security-policy": POLICY, "cache-control": "no-cache"}


class _CheckedFiles(StaticFiles):
    """Static files that the browser revalidates before each use, so that it never mixes modules of two versions."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        """Return the response of a file with the header `cache-control: no-cache`."""
        response = super().file_response(*args, **options)
        response.headers["cache-control"] = "no-cache"
        return response


def add_routes(app: FastAPI) -> None:
    """Add the routes of the page, of its files, of the sample images and of `/docs`.

    Args:
        app: the application. If the package has no folder of sample images, their paths return 404.
    """

    @app.get("/", include_in_schema=False)
    def index() -> Response:
        return FileResponse(FILES / "index.html", headers=HEADERS)

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        response = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url="page/swagger/swagger-ui-bundle.js",
            swagger_css_url="page/swagger/swagger-ui.css",
            swagger_favicon_url="data:,",
        )
        response.headers["content-security-policy"] = _docs_policy(bytes(response.body))
        return response

    app.mount("/page/swagger", StaticFiles(directory=SWAGGER), name="swagger")
    app.mount("/page/samples", StaticFiles(directory=SAMPLES, check_dir=False), name="samples")
    app.mount("/page", _CheckedFiles(directory=FILES), name="page")


def _docs_policy(html: bytes) -> str:
    """Return a content security policy that allows Swagger UI's styles and, by their hashes, its inline scripts."""
    scripts = re.findall(rb"<script>(.*?)</script>", html, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in scripts]
    return f"{POLICY}; script-src 'self' {' '.join(hashes)}; style-src 'self' 'unsafe-inline'"
