"""CVAT's trackers: shapes on one image, and then the same shapes on the next images.

The client keeps the state of each shape between two requests, so the endpoint keeps nothing. A state is signed, because
the endpoint computes with its content.
"""

from __future__ import annotations

import base64
import hmac
from typing import Any

import numpy as np

from sam_endpoint.model.call import Call
from sam_endpoint.model.engine import EmbeddedImage, Engine
from sam_endpoint.model.errors import BadInput, kind
from sam_endpoint.model.segmenter import Segmentation
from sam_endpoint.model.tracking.prompt_list import parse_track_prompts
from sam_endpoint.model.tracking.ways import Tracker, tracker_for
from sam_endpoint.scoring.online.dialects.best_masks import largest_polygon

DIGEST_BYTES, FRAME_BYTES = 32, 8
RECTANGLE, POLYGON = b"r", b"p"
OBJECT = 1  # number of the only object of a state
SHAPE_FORM = "[x1, y1, x2, y2] of a rectangle or [x1, y1, x2, y2, x3, y3, ...] of a polygon"


def track_shapes(
    engine: Engine, image: EmbeddedImage, shapes: object, states: object, key: bytes, call: Call
) -> dict[str, list[Any]]:
    """Begin to track shapes, or find tracked shapes in the next image.

    Args:
        engine: engine of the model.
        image: the image.
        shapes: for each object without a state, its rectangle or polygon as a flat list of numbers in pixels.
        states: for each object the state of the image before; missing or null for new objects.
        key: signs the states.
        call: context of the request.

    Returns:
        `shapes`, each of the form of the object's first shape, or None if the object is not visible; and `states`.

    Raises:
        BadInput: a shape or a state is malformed, or a state was made by another model or endpoint.
    """
    known = states if isinstance(states, list) else []
    given = shapes if isinstance(shapes, list) else [None] * len(known)
    if not isinstance(shapes, list) and not known:
        raise BadInput("shapes", f"a list of shapes, {SHAPE_FORM}", kind(shapes))
    tracker = tracker_for(engine.segmenter)
    answer: dict[str, list[Any]] = {"shapes": [], "states": []}
    for number in range(max(len(given), len(known))):
        state = known[number] if number < len(known) else None
        if state is None:
            shape = given[number] if number < len(given) else None
            text, found = _begin(tracker, image, shape, f"shapes[{number}]", key, call), shape
        else:
            text, found = _continue(tracker, image, state, f"states[{number}]", key, call)
        call.count_answer(len(text))
        answer["shapes"].append(found or None)
        answer["states"].append(text)
    return answer


def _begin(tracker: Tracker, image: EmbeddedImage, shape: Any, place: str, key: bytes, call: Call) -> str:
    """Track a new object in its first image. Return its state."""
    if not isinstance(shape, list) or not (len(shape) == 4 or (len(shape) >= 6 and len(shape) % 2 == 0)):
        raise BadInput(place, SHAPE_FORM, kind(shape))
    form = RECTANGLE if len(shape) == 4 else POLYGON
    prompt: dict[str, Any] = {"frame": 0, "object": OBJECT}
    prompt |= {"box": shape} if form == RECTANGLE else {"mask": [shape]}
    try:
        prompts = parse_track_prompts([prompt], image.size, 1, call=call)
    except BadInput as error:
        raise BadInput(place, error.expected, error.got) from None
    state = tracker.new_state()
    next(iter(tracker.track([(0, image.embedding)], prompts, state, call)))
    return _sign(form, 0, state.to_bytes(), key)


def _continue(
    tracker: Tracker, image: EmbeddedImage, text: Any, place: str, key: bytes, call: Call
) -> tuple[str, list[float]]:
    """Find an object in the next image. Return its state and its shape."""
    form, frame, data = _verify(text, place, key)
    call.keep(len(data))
    state = tracker.parse_state(data)
    try:
        tracked = next(iter(tracker.track([(frame + 1, image.embedding)], [], state, call)))
    except BadInput as error:
        raise BadInput(place, error.expected, error.got) from None
    (thing,) = tracked.objects
    segmentation = Segmentation(thing.logits[None], np.array([thing.score], np.float32), tracked.size)
    with call.stage("mask"):
        (mask,) = tracker.segmenter.cropped_masks(segmentation)
    outline = largest_polygon(mask, call)
    if form == RECTANGLE and outline:
        shape = [float(side) for side in mask.box() + np.array([0, 0, 1, 1])]
    else:
        shape = [float(number) for point in outline for number in point]
    return _sign(form, frame + 1, state.to_bytes(), key), shape


def _sign(form: bytes, frame: int, data: bytes, key: bytes) -> str:
    content = form + frame.to_bytes(FRAME_BYTES, "big") + data
    return base64.b64encode(hmac.digest(key, content, "sha256") + content).decode()


def _verify(text: Any, place: str, key: bytes) -> tuple[bytes, int, bytes]:
    """Return the form of the shape, the number of the last frame, and the state of the tracker."""
    expected = "a state of an earlier response of this endpoint; begin again with a shape"
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        raise BadInput(place, expected, kind(text)) from None
    digest, content = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
    if not hmac.compare_digest(digest, hmac.digest(key, content, "sha256")):
        raise BadInput(place, expected, "another state")
    return content[:1], int.from_bytes(content[1 : 1 + FRAME_BYTES], "big"), content[1 + FRAME_BYTES :]
