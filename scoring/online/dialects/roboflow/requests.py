"""The bodies of requests of Roboflow's clients."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sam_endpoint.model.engine import EmbeddedImage, Engine
from sam_endpoint.model.errors import BadInput, UnknownImage, kind
from sam_endpoint.model.rows import MAX_ID
from sam_endpoint.scoring.online import sample
from sam_endpoint.scoring.online.context import RequestContext


class ImageBody(BaseModel):
    """An image: `{"type": "base64" | "url", "value": text}`."""

    type: str = "base64"
    value: Any = None


class SegmentBody(BaseModel):
    """Fields of every route; clients send more, which is ignored."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())
    image: ImageBody | str | None = None
    image_id: str | None = Field(None, max_length=MAX_ID)
    model_id: str | None = None
    point_coords: Any = None
    point_labels: Any = None
    mask_input: Any = None
    mask_input_format: Literal["json", "binary"] = "json"


class SamBody(SegmentBody):
    """Fields of the `/sam/` routes."""

    format: Literal["json", "binary"] = "json"
    sam_version_id: str | None = None
    embeddings: Any = None
    embeddings_format: Literal["json", "binary"] = "json"
    orig_im_size: tuple[int, int] | None = None
    has_mask_input: bool = False
    use_mask_input_cache: bool = True


class Sam2Body(SegmentBody):
    """Fields of the `/sam2/` routes."""

    format: Literal["json", "rle", "binary"] = "json"
    sam2_version_id: str | None = None
    prompts: Any = None
    multimask_output: bool = True
    save_logits_to_cache: bool = False
    load_logits_from_cache: bool = False


EXAMPLE_IMAGE = {"type": "base64", "value": sample.PICTURE}


def example(**fields: Any) -> dict[str, Any]:
    """Return the OpenAPI example of a request with these fields."""
    return {"a disc": {"value": fields}}


def embed_image(engine: Engine, body: SegmentBody, context: RequestContext) -> EmbeddedImage:
    """Return the image of a request; an image that is cached under its `image_id` is not read again.

    Raises:
        BadInput: the request has no image, or one that cannot be read.
        UnknownImage: the request has only an `image_id`, and no image is cached under it.
    """
    if body.image_id is not None:
        try:
            return engine.find(body.image_id)
        except UnknownImage:
            if body.image is None:
                raise
    if body.image is None:
        raise BadInput("image", "an image, or the image_id of one that is kept", "neither")
    image = ImageBody(value=body.image) if isinstance(body.image, str) else body.image
    if image.type == "numpy":
        raise BadInput("image", "type base64 or url (a numpy image is a pickle, which can run code)", "type numpy")
    if image.type not in ("base64", "url") or not isinstance(image.value, str):
        raise BadInput("image", '{"type": "base64" or "url", "value": text}', kind(image.value))
    embedded = engine.embed(engine.images.reference(image.value, upright=True), context.call)
    if body.image_id is not None:
        engine.name(body.image_id, embedded)
    return embedded
