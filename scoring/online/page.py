"""Serve the annotation page at `/`, the page for videos at `/video`, images by URL, and the API docs at `/docs`.

No page loads a file from another server.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from pydantic import BaseModel
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from sam_endpoint.model.errors import BadInput, kind
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import JsonRoute

FILES = Path(__file__).with_name("page")
SWAGGER = Path(fastapi_offline.__file__).with_name("static")
SAMPLES = Path(__file__).resolve().parents[2] / "samples"
POLICY = "default-src 'self'; img-src 'self' blob: data:; worker-src 'self'; frame-ancestors 'none'"
# The image that `/image` returns is data for the page. A browser that opens the path must not interpret it.
IMAGE_HEADERS = {
    "content-type": "application/octet-stream",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
HEADERS = {"content-security-policy": POLICY, "cache-control": "no-cache"}
IMAGE_START = re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|BM|RIFF....WEBP|....ftypavi[fs]", re.DOTALL)


class ImageAddress(BaseModel):
    """The body of a request to `/image`."""

    url: str


class _CheckedFiles(StaticFiles):
    """Static files that the browser revalidates before each use, so that it never mixes modules of two versions."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        """Return the response of a file with the header `cache-control: no-cache`."""
        response = super().file_response(*args, **options)
        response.headers["cache-control"] = "no-cache"
        return response


def add_routes(app: FastAPI) -> None:
    """Add the routes of the pages, of their files, of the sample images, of images by URL and of `/docs`.

    Args:
        app: the application. If the package has no folder of sample images, their paths return 404.
    """
    app.router.add_api_route(
        "/image", fetch_image, methods=["POST"], include_in_schema=False, route_class_override=JsonRoute
    )

    @app.get("/", include_in_schema=False)
    def index() -> Response:
        return FileResponse(FILES / "index.html", headers=HEADERS)

    @app.get("/video", include_in_schema=False)
    def video() -> Response:
        return FileResponse(FILES / "video" / "index.html", headers=HEADERS)

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


def fetch_image(address: ImageAddress, request: Request) -> Response:
    """Return the file of the image at a URL. The page's security policy lets the page load it from here only.

    The limits are those of images that scoring requests name by URL: hosts, size, time, and the memory of all requests
    in progress.

    Raises:
        BadInput: the text is not the URL of an image, or the image cannot be fetched.
        Overloaded: memory is too short.
    """
    images, call = request.app.state.catalog.get().engine.images, context_of(request.scope).call
    try:
        reference = images.reference(address.url)
        if reference.kind != "url":
            raise BadInput("url", "an http(s) URL", kind(address.url))
        with call.stage("fetch"):
            data: bytes = images.read(reference, call)
    except BadInput as error:
        raise error.renamed({"image": "url"}) from None
    if not IMAGE_START.match(data):  # the route is for images only, not for any file of a public host
        raise BadInput(
            "url", "the URL of an image that browsers display", f"a file of {len(data)} bytes of another kind"
        )
    return Response(data, headers=IMAGE_HEADERS)


def _docs_policy(html: bytes) -> str:
    """Return a content security policy that allows Swagger UI's styles and, by their hashes, its inline scripts."""
    scripts = re.findall(rb"<script>(.*?)</script>", html, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in scripts]
    return f"{POLICY}; script-src 'self' {' '.join(hashes)}; style-src 'self' 'unsafe-inline'"
