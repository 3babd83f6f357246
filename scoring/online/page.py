"""The page to click on, at `/`, and the API's, at `/docs`: plain files, nothing from elsewhere."""

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
    """Files that a browser checks for changes before each use, so that modules of two versions never run together."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers["cache-control"] = "no-cache"
        return response


def add(app: FastAPI) -> None:
    """Serves the page, its files, and the sample pictures where they are at hand."""

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
    """Return a policy that allows the page's inline scripts, by their hashes, and the styles that Swagger UI sets."""
    scripts = re.findall(rb"<script>(.*?)</script>", html, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in scripts]
    return f"{POLICY}; script-src 'self' {' '.join(hashes)}; style-src 'self' 'unsafe-inline'"
