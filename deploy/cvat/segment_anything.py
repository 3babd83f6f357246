"""Auto-annotation functions for CVAT that ask a Segment Anything endpoint.

The file needs only `cvat-sdk[masks]`; it runs wherever `cvat-cli` runs. Every object of each frame of a task, as masks
with the label `object`:

    cvat-cli --server-host CVAT task auto-annotate 7 --function-file segment_anything.py -p url=str:http://ENDPOINT:5000

The parameter `kind=str:interaction` gives the function behind CVAT's interactors instead, which an agent runs:

    cvat-cli --server-host CVAT function create-native SAM --function-file segment_anything.py -p kind=str:interaction \
        -p url=str:http://ENDPOINT:5000

The parameter `kind=str:tracking` gives, in the same way, a function that tracks rectangles and polygons through frames.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, NamedTuple

import cvat_sdk.auto_annotation as cvataa
import numpy as np
import PIL.Image
from cvat_sdk import models
from cvat_sdk.masks import encode_mask

MIN_CORNERS = 3
LABEL_ID = 0


class Endpoint:
    """Asks the endpoint's routes `/score` and `/`.

    Args:
        url: URL of the endpoint.
        key: API key, if the endpoint needs one.
        seconds: timeout of a request.
    """

    def __init__(self, url: str, key: str = "", seconds: float = 300) -> None:
        self.url, self.key, self.seconds = url.rstrip("/"), key, seconds

    def score(self, row: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
        """Return the masks of one row, for each prompt the best.

        Raises:
            EndpointError: the endpoint rejected the request, or cannot be reached.
        """
        (answer,) = self._post("/score", {"input_data": [row], "params": params})
        if answer["error"]:
            raise EndpointError(400, answer["error"])
        return [
            max(prediction["mask_per_prediction"], key=lambda mask: mask["iou_score"])
            for prediction in answer["predictions"]
        ]

    def track(self, image: str, **tracked: list[Any]) -> dict[str, list[Any]]:
        """Return the `shapes` and the `states` of one object or several in an image, given its shapes or its states.

        Raises:
            EndpointError: the endpoint rejected the request, or cannot be reached.
        """
        answer: dict[str, list[Any]] = self._post("/", {"image": image, **tracked})
        return answer

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"content-type": "application/json", **({"x-api-key": self.key} if self.key else {})}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self.seconds) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise EndpointError(error.code, _message(error.read())) from None
        except urllib.error.URLError as error:
            raise EndpointError(0, f"{self.url} cannot be reached: {error.reason}") from None


class EndpointError(Exception):
    """The endpoint answered with an error, or not at all (status 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# No dataclass: `cvat-cli` loads this file without an entry in `sys.modules`, where dataclasses look for their module.
class Picture(NamedTuple):
    """An image of a frame, encoded for the endpoint, and the name under which the endpoint caches it."""

    text: str
    name: str


def encode(image: PIL.Image.Image) -> Picture:
    """Return a frame as a PNG, without a change of its pixels."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", compress_level=1)
    data = buffer.getvalue()
    return Picture(base64.b64encode(data).decode(), f"cvat-{hashlib.sha256(data).hexdigest()}")


class DetectionFunction:
    """Finds every object of a frame."""

    def __init__(self, endpoint: Endpoint, label: str) -> None:
        self.endpoint = endpoint
        self.spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec(label, LABEL_ID)])

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image
    ) -> Sequence[models.LabeledShapeRequest]:
        """Return a mask, or polygons if CVAT asks for these, of each object."""
        encoding = "polygon" if context.conv_mask_to_poly else "png"
        params = {} if context.conf_threshold is None else {"pred_iou_thresh": context.conf_threshold}
        found = self.endpoint.score({"image": encode(image).text}, mask_encoding=encoding, **params)
        shapes = []
        for mask in found:
            if context.conv_mask_to_poly:
                polygons = json.loads(mask["encoded_binary_mask"])
                shapes += [cvataa.polygon(LABEL_ID, points) for points in polygons if len(points) >= 2 * MIN_CORNERS]
            else:
                shapes.append(cvataa.mask(LABEL_ID, _points(mask)))
        return shapes


class InteractionFunction:
    """Finds the object that a user's points and box select; each frame is encoded once."""

    spec = cvataa.InteractionFunctionSpec(min_pos_points=0, min_neg_points=0, min_bounding_boxes=0)

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def preprocess_image(self, context: cvataa.InteractionFunctionContext, image: PIL.Image.Image) -> Picture:
        """Encode a frame for the endpoint."""
        return encode(image)

    def detect(
        self, context: cvataa.InteractionFunctionContext, pp_image: Picture, prompts: cvataa.InteractionPrompts
    ) -> list[cvataa.InteractionResultShape]:
        """Return the mask of the selected object, with its score."""
        points = [*prompts.pos_points, *prompts.neg_points]
        row: dict[str, Any] = {"image_id": pp_image.name}
        if points:
            row["input_points"] = [[list(point) for point in points]]
            row["input_labels"] = [[1] * len(prompts.pos_points) + [0] * len(prompts.neg_points)]
        if prompts.bounding_box is not None:
            row["input_boxes"] = [[*prompts.bounding_box[0], *prompts.bounding_box[1]]]
        if len(row) == 1:
            return []
        try:
            (mask,) = self.endpoint.score(row, mask_encoding="png")
        except EndpointError as error:
            if error.status == 0:
                raise
            # The endpoint does not know the frame, or no longer.
            (mask,) = self.endpoint.score({**row, "image": pp_image.text}, mask_encoding="png")
        confidence = models.AttributeValRequest(
            spec_id=int(cvataa.InteractionResultAttributes.CONFIDENCE),
            value=f"{min(1.0, max(0.0, mask['iou_score'])):.4f}",
        )
        return [cvataa.InteractionResultShape(type="mask", points=_points(mask), attributes=[confidence])]


class TrackingFunction:
    """Finds the shapes of one frame in the frames after it. The state of a shape is a text of the endpoint's."""

    spec = cvataa.TrackingFunctionSpec(supported_shape_types={"rectangle", "polygon"})

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def preprocess_image(self, context: cvataa.TrackingFunctionContext, image: PIL.Image.Image) -> str:
        """Encode a frame for the endpoint, which caches the features of the frame for all shapes."""
        return encode(image).text

    def init_tracking_state(
        self, context: cvataa.TrackingFunctionShapeContext, pp_image: str, shape: cvataa.TrackableShape
    ) -> list[str]:
        """Begin to track a shape."""
        return self.endpoint.track(pp_image, shapes=[shape.points])["states"]

    def track(
        self, context: cvataa.TrackingFunctionShapeContext, pp_image: str, state: list[str]
    ) -> cvataa.TrackableShape | None:
        """Return the shape in the next frame, or None if its object is not visible."""
        answer = self.endpoint.track(pp_image, states=state)
        state[:] = answer["states"]
        (points,) = answer["shapes"]
        return None if points is None else cvataa.TrackableShape(type=context.original_shape_type, points=points)


def _points(mask: dict[str, Any]) -> list[float]:
    """Return a mask in CVAT's form."""
    with PIL.Image.open(io.BytesIO(base64.b64decode(mask["encoded_binary_mask"]))) as picture:
        return encode_mask(np.asarray(picture) > 0)


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:500] or "the endpoint's answer cannot be read"


def create(
    url: str, kind: str = "detection", key: str = "", label: str = "object"
) -> DetectionFunction | InteractionFunction | TrackingFunction:
    """Return the function that CVAT's tools run.

    Args:
        url: URL of the endpoint.
        kind: `detection` of every object, `interaction` by points and boxes, or `tracking` of shapes.
        key: API key, if the endpoint needs one.
        label: name of the label of detected objects; the task must have it.

    Raises:
        ValueError: `kind` is another word.
    """
    endpoint = Endpoint(url, key)
    if kind == "detection":
        return DetectionFunction(endpoint, label)
    if kind == "interaction":
        return InteractionFunction(endpoint)
    if kind == "tracking":
        return TrackingFunction(endpoint)
    raise ValueError(f"kind: expected detection, interaction or tracking, got {kind!r}")
