"""Images on the page: orientations, 12 megapixels, images that are sent once, and an endpoint behind a proxy."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import Browser, Page, Response, expect

from tests import pictures
from tests.conftest import serve_endpoint
from tests.scoring.online.browser import (
    canvas_pixels,
    click,
    open_file,
    open_page,
    saved_mask,
    shoot,
    wait_for_drawing,
    wait_for_mask,
    wait_for_picture,
)

EMBEDDING_BYTES = 1_500_000  # room for one embedding of sam-tiny, which takes 1,036,800


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an endpoint whose cache holds one embedding, and return its URL."""
    with serve_endpoint(tmp_path_factory.mktemp("page") / "log", "--embedding-bytes", EMBEDDING_BYTES) as base:
        yield base


class Proxy(ThreadingHTTPServer):
    """A reverse proxy that serves an endpoint below /a/prefix.

    Args:
        upstream: URL of the endpoint.
        drop: name of a param that the proxy removes from requests.
    """

    def __init__(self, upstream: str, drop: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.upstream, self.drop = upstream, drop
        self.url = f"http://127.0.0.1:{self.server_address[1]}/a/prefix/"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def server_close(self) -> None:
        """Stop the proxy."""
        self.shutdown()
        super().server_close()


class _Forward(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        """Forward a request to the endpoint."""
        body = self.rfile.read(int(self.headers.get("content-length", 0))) or None
        if body and self.server.drop:
            content = json.loads(body)
            content["params"].pop(self.server.drop)
            body = json.dumps(content).encode()
        if not self.path.startswith("/a/prefix/"):
            self._send(404, "text/html", b"<p>not below the prefix")
            return
        address = self.server.upstream + self.path.removeprefix("/a/prefix")
        request = urllib.request.Request(address, body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request) as answer:
                self._send(answer.status, answer.headers["content-type"], answer.read())
        except urllib.error.URLError:
            self._send(502, "text/html", b"<h1>Bad gateway</h1>")

    do_POST = do_GET

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Print nothing."""


def draw_disc(width: int, height: int, center: tuple[int, int], radius: int) -> tuple[Image.Image, np.ndarray]:
    """Draw a blue disc. Returns the image, and the mask of the disc."""
    x, y = center
    box = (x - radius, y - radius, x + radius, y + radius)
    image, mask = Image.new("RGB", (width, height), (214, 204, 190)), Image.new("L", (width, height))
    ImageDraw.Draw(image).ellipse(box, fill=(52, 86, 158))
    ImageDraw.Draw(mask).ellipse(box, fill=1)
    return image.filter(ImageFilter.GaussianBlur(0.7)), np.asarray(mask) > 0


def photograph(upright: Image.Image, orientation: int, kind: str = "JPEG") -> bytes:
    """Return an image file with an EXIF orientation that viewers show as `upright`."""
    return pictures.turned(upright, orientation, kind, quality=95)


def drawn_iou(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> float:
    """Return the IoU of a mask with the pixels of the canvas that have changed."""
    rows, columns = before.shape[:2]
    expected = np.asarray(Image.fromarray(mask).resize((columns, rows)))
    return pictures.iou(np.abs(after - before).sum(2) > 30, expected)


def sent(responses: list[Response]) -> list[tuple[int, bool]]:
    """Return the status of each request of a click to /score, and whether the request held the image.

    Previews under the mouse are left out. They ask for no logits.
    """
    scored = [response for response in responses if "/score" in response.url]
    bodies = [json.loads(response.request.post_data or "") for response in scored]
    clicks = [i for i, body in enumerate(bodies) if body["params"].get("return_logits")]
    return [(scored[i].status, "image" in bodies[i]["input_data"][0]) for i in clicks]


def listen(page: Page) -> list[Response]:
    """Return a list that receives all responses to the page."""
    responses: list[Response] = []
    page.on("response", lambda response: responses.append(response))
    return responses


@pytest.mark.parametrize(("kind", "orientations"), [("JPEG", range(1, 9)), ("PNG", range(1, 9)), ("WEBP", range(1, 9))])
def test_the_mask_covers_the_disc_on_the_screen_in_every_orientation(
    page: Page, kind: str, orientations: Sequence[int]
) -> None:
    upright, mask = draw_disc(240, 160, (85, 65), 42)
    scores = {}
    for count, orientation in enumerate(orientations, 1):
        open_file(page, photograph(upright, orientation, kind))
        wait_for_picture(page)
        before = canvas_pixels(page)
        click(page, 85, 65)
        wait_for_drawing(page, count)
        scores[orientation] = round(drawn_iou(before, canvas_pixels(page), mask), 3)
        shoot(page, f"{kind}-orientation-{orientation}")
    assert min(scores.values()) > 0.8, scores


def test_rejects_masks_of_another_size_with_a_clear_message(browser: Browser, url: str) -> None:
    upright, _ = draw_disc(240, 160, (85, 65), 42)
    with Proxy(url, drop="orientation") as proxy, open_page(browser, proxy.url) as page:
        open_file(page, photograph(upright, 6))
        click(page, 85, 65)
        expect(page.locator("#status")).to_contain_text(
            "mask has 160 x 240 pixels, and the image on this page has 240 x 160", timeout=60_000
        )
        expect(page.locator("#status")).to_contain_text("no mask is drawn")
        expect(page.locator("#save-png")).to_be_disabled()
        expect(page.locator("#candidates label")).to_have_count(0)
        assert page.evaluate("performance.getEntriesByName('draw masks').length") == 0


def test_works_behind_a_prefix_and_reports_an_endpoint_that_is_gone(browser: Browser, url: str) -> None:
    upright, mask = draw_disc(240, 160, (85, 65), 42)
    with Proxy(url) as proxy, open_page(browser, proxy.url) as page:
        open_file(page, photograph(upright, 1))
        click(page, 85, 65)
        wait_for_mask(page)
        assert pictures.iou(saved_mask(page), mask) > 0.8
        proxy.upstream = "http://127.0.0.1:9"  # a port that nothing listens on
        click(page, 30, 150, modifiers=["Shift"])
        expect(page.locator("#status")).to_have_text("The endpoint answered with HTTP status 502.")


def test_an_image_of_12_megapixels_is_decoded_once_and_sent_once(browser: Browser, url: str) -> None:
    picture, mask = draw_disc(4000, 3000, (1500, 1300), 900)
    with open_page(browser, url) as page:
        page.evaluate(
            """() => {
                const decode = window.createImageBitmap;
                window.decoded = 0;
                window.createImageBitmap = (source, ...rest) => {
                    window.decoded += source instanceof Blob;
                    return decode(source, ...rest);
                };
            }"""
        )
        responses = listen(page)
        open_file(page, pictures.to_bytes(picture, "JPEG", quality=80))
        wait_for_picture(page)
        before = canvas_pixels(page)
        click(page, 1500, 1300)
        wait_for_mask(page)
        wait_for_drawing(page, 1)
        assert drawn_iou(before, canvas_pixels(page), mask) > 0.8
        for count, x in enumerate((1300, 1700, 1900), 2):
            click(page, x, 1500)
            wait_for_drawing(page, count)
        measures = wait_for_drawing(page, 4)
        print("draw masks, ms:", [round(measure["duration"], 1) for measure in measures])
        assert sent(responses) == [(200, True), (200, False), (200, False), (200, False)]
        assert page.evaluate("window.decoded") == 1
        assert [worker.url.rpartition("/")[2] for worker in page.workers] == ["worker.js"]
        shown = page.locator("#canvas").evaluate("canvas => [canvas.width, canvas.height]")
        assert [(measure["width"], measure["height"]) for measure in measures] == [tuple(shown)] * 4
        assert shown[0] * shown[1] < 1_000_000
        assert saved_mask(page).shape == (3000, 4000)


def test_an_image_is_sent_again_after_the_endpoint_has_evicted_it(
    page: Page, url: str, disc: tuple[bytes, np.ndarray]
) -> None:
    responses = listen(page)
    open_file(page, disc[0])
    click(page, 110, 80)
    wait_for_drawing(page, 1)
    second_image = pictures.to_text(pictures.to_bytes(draw_disc(200, 200, (90, 90), 50)[0]))
    body: dict[str, Any] = {"input_data": [{"image": second_image, "input_boxes": "[40, 40, 140, 140]"}]}
    request = urllib.request.Request(f"{url}/score", json.dumps(body).encode(), {"content-type": "application/json"})
    urllib.request.urlopen(request).close()
    click(page, 120, 90)
    wait_for_drawing(page, 2)
    assert sent(responses) == [(200, True), (404, False), (200, True)]
    assert pictures.iou(saved_mask(page), disc[1]) > 0.7


def test_clicks_during_an_upload_wait_and_do_not_send_the_image_again(
    page: Page, disc: tuple[bytes, np.ndarray]
) -> None:
    responses = listen(page)
    open_file(page, disc[0])
    page.locator("#canvas").evaluate(
        """canvas => {
            for (let i = 0; i < 3; i++) canvas.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"}));
        }"""
    )
    wait_for_mask(page)
    page.wait_for_timeout(200)
    assert [image for _, image in sent(responses)] == [True, False, False]
