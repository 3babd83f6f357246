"""The engine: images of tenants, references to images, cancelled calls, and the stages of a call."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from sam_endpoint.model import threads
from sam_endpoint.model.call import Call, Owner
from sam_endpoint.model.errors import BadInput, ClientDisconnected, UnknownImage
from sam_endpoint.model.images import ImageRef
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.segmenter import Segmenter
from tests import pictures
from tests.engines import engine_of

BOX = [Prompt(box=np.array([68, 38, 153, 123], np.float32))]


def test_a_tenant_sees_only_its_own_images_and_names(tiny: Segmenter, disc: tuple[bytes, np.ndarray]) -> None:
    engine = engine_of(tiny)
    first, second = engine.for_tenant("first"), engine.for_tenant("second")
    image = first.embed(ImageRef.content(disc[0]))
    first.name("disc", image)
    assert first.find("disc").embedding is image.embedding and first.find(image.key).key == image.key
    for other_engine in (second, engine):
        for name in ("disc", image.key):
            with pytest.raises(UnknownImage):
                other_engine.find(name)
    second_image = second.embed(ImageRef.content(disc[0]))
    # The image is encoded again. Otherwise the response time would reveal that another tenant has sent it.
    assert second_image.embedding is not image.embedding
    assert engine.cache.nbytes == 2 * image.embedding.nbytes  # all tenants share a cache


def test_an_image_id_refers_to_a_cached_image(tiny: Segmenter, disc: tuple[bytes, np.ndarray]) -> None:
    engine = engine_of(tiny)
    image = engine.embed(ImageRef.content(disc[0]))
    assert engine.embed(ImageRef.id(image.key)).embedding is image.embedding
    with pytest.raises(UnknownImage):
        engine.embed(ImageRef.id("unknown"))


def test_references_to_the_same_image_are_equal(disc: tuple[bytes, np.ndarray], tiny: Segmenter) -> None:
    reference = engine_of(tiny).images.reference
    text = pictures.to_text(disc[0])
    assert len({reference(disc[0]), reference(bytearray(disc[0])), ImageRef.content(disc[0])}) == 1
    assert reference(text) == reference(f" {text}\n") == reference(f"data:image/png;base64,{text}")
    assert reference("HTTP://host/a.png").kind == "url" and reference(disc[0]).kind == "content"
    with pytest.raises(BadInput, match="scheme 'ftp'"):
        reference("ftp://host/a.png")


def test_an_image_does_not_wait_for_all_images_of_another_tenant(tiny: Segmenter) -> None:
    engine, done, over = engine_of(tiny, cache_bytes=1), itertools.count(), threading.Event()

    def encode_all(number: int) -> None:
        for shade in itertools.cycle(range(256)):
            if over.is_set():
                return
            data = pictures.to_bytes(Image.new("RGB", (8, 8), (number % 256, shade, number // 256)))
            engine.embed(ImageRef.content(data), Call(owner=Owner("many", f"{number}")))
            next(done)

    slots = 1 + threads.thread_count()
    with ThreadPoolExecutor(8 * slots) as pool:
        futures = [pool.submit(encode_all, number) for number in range(8 * slots)]
        try:
            deadline = time.monotonic() + 60
            while next(done) < 20 and time.monotonic() < deadline:
                time.sleep(0.01)
            before = next(done)
            engine.embed(ImageRef.content(pictures.disc()[0]), Call(owner=Owner("one")))
            after = next(done)
        finally:
            over.set()
    assert not any(future.exception() for future in futures)
    # Those that were being encoded when the image arrived, and those that came with it.
    assert after - before <= 2 * slots


def test_a_cancelled_call_stops_before_its_next_stage(tiny: Segmenter, disc: tuple[bytes, np.ndarray]) -> None:
    stages: list[str] = []

    @contextmanager
    def watch(stage: str) -> Iterator[None]:
        stages.append(stage)
        yield
        if stage == "decode":
            call.cancel()

    call, engine = Call(watch), engine_of(tiny)
    with pytest.raises(ClientDisconnected):
        engine.embed(ImageRef.content(disc[0]), call)
    assert stages == ["fetch", "decode"] and call.cancelled
    image = engine.embed(ImageRef.content(disc[0]))  # another call is unaffected
    with pytest.raises(ClientDisconnected):
        engine.segment(image, BOX, call=call)


def test_a_call_reports_its_stages_by_name(tiny: Segmenter, disc: tuple[bytes, np.ndarray]) -> None:
    stages: list[str] = []

    @contextmanager
    def watch(stage: str) -> Iterator[None]:
        stages.append(stage)
        yield

    engine = engine_of(tiny)
    for _ in range(2):
        image = engine.embed(ImageRef.content(disc[0]), Call(watch))
        engine.segment(image, BOX, call=Call(watch))
    assert stages == ["fetch", "decode", "encode", "prompt", "fetch", "prompt"]
