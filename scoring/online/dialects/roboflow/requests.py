"""The request bodies of Roboflow Inference's SAM routes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sam_endpoint.model.engine import EmbeddedImage, Engine
from sam_endpoint.model.errors import BadInput, UnknownImage, kind
from sam_endpoint.model.rows import MAX_ID
from sam_endpoint.scoring.online.context import RequestContext
from sam_endpoint.scoring.online.example_image import EXAMPLE_PNG

PROMPTS_HELP = (
    '`{"prompts": [prompt, ...]}` or a list of prompts. A prompt is `{"points": [{"x", "y", "positive"}, ...], "box": '
    '{"x", "y", "width", "height"}}`, where x and y of the box are its centre.'
)


class ImageBody(BaseModel):
    """An image: base64 text of an image file, or a URL."""

    type: str = Field("base64", description='"base64" or "url".')
    value: Any = Field(None, description="Base64 text of the image file, or the URL.")


class SegmentBody(BaseModel):
    """Fields of every route. Unknown fields are ignored, because clients send more fields than the routes use."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())
    image: ImageBody | str | None = Field(None, description="The image. Optional if `image_id` is cached.")
    image_id: str | None = Field(None, max_length=MAX_ID, description="Name under which the image is cached.")
    model_id: str | None = Field(None, description="Name of a served model, as `/models` lists them.")
    point_coords: Any = Field(None, description="Points [[x, y], ...] in pixels, all of one prompt.")
    point_labels: Any = Field(None, description="One label for each point. 1: on the object; 0: not on it.")
    mask_input: Any = Field(
        None, description="Low-resolution logits of an earlier response, or polygons [[x, y], ...]."
    )
    mask_input_format: Literal["json", "binary"] = Field(
        "json", description='"binary": `mask_input` is base64 of a `.npy` array.'
    )


class SamBody(SegmentBody):
    """Fields of the `/sam/` routes."""

    format: Literal["json", "binary"] = Field("json", description='"binary": a `.npy` or `.npz` file as response.')
    sam_version_id: str | None = Field(None, description='Version such as "vit_h": the model "sam/vit_h" answers.')
    embeddings: Any = Field(None, description="Embedding of the image from `/sam/embed_image`, instead of the image.")
    embeddings_format: Literal["json", "binary"] = Field(
        "json", description='"binary": `embeddings` is base64 of a `.npy` array.'
    )
    orig_im_size: tuple[int, int] | None = Field(None, description="[height, width] of the embeddings' image.")
    has_mask_input: bool = Field(False, description="Whether to refine an earlier mask.")
    use_mask_input_cache: bool = Field(
        True, description="Refine the latest mask of the image if it is cached, else refine `mask_input`."
    )


class Sam2Body(SegmentBody):
    """Fields of the `/sam2/` routes."""

    format: Literal["json", "rle", "binary"] = Field(
        "json", description='"json": polygons; "rle": COCO run-length encoding; "binary": a `.npz` file as response.'
    )
    sam2_version_id: str | None = Field(
        None, description='Version such as "hiera_tiny": the model "sam2/hiera_tiny" answers.'
    )
    prompts: Any = Field(None, description=PROMPTS_HELP)
    multimask_output: bool = Field(True, description="Whether the model chooses the best of three masks.")
    save_logits_to_cache: bool = Field(False, description="Cache the logits of the masks for later requests.")
    load_logits_from_cache: bool = Field(
        False,
        description="Refine the cached masks of an earlier request, if this request has all its boxes and points.",
    )


EXAMPLE_IMAGE = {"type": "base64", "value": EXAMPLE_PNG}


def example(**fields: Any) -> dict[str, Any]:
    """Return the OpenAPI examples of a request body.

    Args:
        **fields: the fields of the body.
    """
    return {"a disc": {"value": fields}}


def embed_image(engine: Engine, body: SegmentBody, context: RequestContext) -> EmbeddedImage:
    """Return the embedding of a request's image, and cache it under the request's `image_id`.

    If an image is cached under the `image_id`, the image in the request is not decoded.

    Args:
        engine: engine of the model, as the request's tenant sees it.
        body: the request body.
        context: context of the request.

    Raises:
        BadInput: the request has no image, or the image cannot be read.
        UnknownImage: the request has only an `image_id`, and no image is cached under it.
    """
    if body.image_id is not None:
        try:
            return engine.find(body.image_id)
        except UnknownImage:
            if body.image is None:
                raise
    if body.image is None:
        raise BadInput("image", "an image, or the image_id of a cached image", "neither")
    image = ImageBody(type="base64", value=body.image) if isinstance(body.image, str) else body.image
    if image.type == "numpy":
        raise BadInput("image", "type base64 or url (a numpy image is a pickle, which can run code)", "type numpy")
    if image.type not in ("base64", "url") or not isinstance(image.value, str):
        raise BadInput("image", '{"type": "base64" or "url", "value": text}', kind(image.value))
    embedded = engine.embed(engine.images.reference(image.value, upright=True), context.call)
    if body.image_id is not None:
        engine.name(body.image_id, embedded)
    return embedded
