"""The request bodies of Roboflow Inference's SAM routes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from sam_endpoint.model.engine import EmbeddedImage, Engine
from sam_endpoint.model.errors import BadInput, UnknownImage, kind
from sam_endpoint.model.images import ImageRef
from sam_endpoint.model.prompts.cells import check_count
from sam_endpoint.model.rows import MAX_ID
from sam_endpoint.scoring.online.context import RequestContext
from sam_endpoint.scoring.online.example_image import EXAMPLE_PNG

PROMPTS_HELP = (
    '`{"prompts": [prompt, ...]}` or a list of prompts. A prompt is `{"points": [{"x", "y", "positive"}, ...], "box": '
    '{"x", "y", "width", "height"}}`, where x and y of the box are its centre.'
)


CONCEPTS_HELP = (
    '1 to 16 concepts `{"type", "text", "boxes", "box_labels", "output_prob_thresh"}`, each with a text, boxes around '
    "examples in pixels, or both. A box is `{x, y, width, height}`, where x and y are its top left corner, or "
    "`{x0, y0, x1, y1}`. A label is 1 for an example and 0 for a counter-example."
)


class ImageBody(BaseModel):
    """An image: base64 text of an image file, or a URL."""

    type: str = Field("base64", description='"base64" or "url".')
    value: Any = Field(None, description="Base64 text of the image file, or the URL.")


class SegmentBody(BaseModel):
    """Fields of every route. Unknown fields are ignored, because clients send more fields than the routes use."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())
    image: ImageBody | str | list[ImageBody | str] | None = Field(
        None, description="The image. Optional if `image_id` is cached. All routes but `/sam/` take a list of images."
    )
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
    """Fields of the `/sam2/` routes, and of the `/sam3/` routes for points and boxes."""

    format: Literal["json", "polygon", "rle", "binary"] = Field(
        "json", description='"json", "polygon": polygons; "rle": COCO run-length encoding; "binary": a `.npz` file.'
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


class ConceptPrompt(BaseModel):
    """One concept."""

    model_config = ConfigDict(extra="ignore")
    type: str | None = Field(None, description='"text" or "visual". Ignored: the other fields decide.')
    text: str | None = None
    output_prob_thresh: float | None = Field(None, description="Minimum score of an instance of this concept.")
    boxes: list[dict[str, Any]] | None = None
    box_labels: list[bool | int] | None = None


class ConceptBody(BaseModel):
    """Fields of `/sam3/concept_segment`."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())
    image: ImageBody | str | list[ImageBody | str] | None = Field(
        None, description="The image, or a list of images. Optional if `image_id` is cached."
    )
    image_id: str | None = Field(None, max_length=MAX_ID, description="Name under which the image is cached.")
    model_id: str | None = Field(None, description="Name of a served model, as `/models` lists them.")
    prompts: list[ConceptPrompt] = Field(description=CONCEPTS_HELP)
    format: Literal["polygon", "json", "rle"] = Field(
        "polygon", description='"polygon", "json": polygons; "rle": COCO run-length encoding.'
    )
    output_prob_thresh: float | None = Field(
        None, description="Minimum score of an instance, 0 to 1; by default that of the model."
    )
    nms_iou_threshold: float | None = Field(
        None, description="Of two instances with a higher mask IoU, the one with the lower score is left out."
    )


Body = TypeVar("Body", ConceptBody, Sam2Body)
EXAMPLE_IMAGE = {"type": "base64", "value": EXAMPLE_PNG}


def example(**fields: Any) -> dict[str, Any]:
    """Return the OpenAPI examples of a request body.

    Args:
        **fields: the fields of the body.
    """
    return {"a disc": {"value": fields}}


def embed_image(engine: Engine, body: SegmentBody | ConceptBody, context: RequestContext) -> EmbeddedImage:
    """Return the embedding of a request's image, as `embedded_image` does, without its pixels."""
    with embedded_image(engine, body, context) as image:
        return image


@contextmanager
def embedded_image(
    engine: Engine, body: SegmentBody | ConceptBody, context: RequestContext, pixels: bool = False
) -> Iterator[EmbeddedImage]:
    """Embed a request's image during a block, and cache the embedding under the request's `image_id`.

    If an image is cached under the `image_id`, and no pixels are needed, the image in the request is not decoded.

    Args:
        engine: engine of the model, as the request's tenant sees it.
        body: the request body.
        context: context of the request.
        pixels: whether the block needs the pixels of the image.

    Raises:
        BadInput: the request has no image, or the image cannot be read.
        UnknownImage: the request has only an `image_id`, and no image is cached under it.
    """
    if body.image_id is not None and not (pixels and body.image is not None):
        try:
            image = engine.find(body.image_id)
        except UnknownImage:
            if body.image is None:
                raise
        else:
            yield image
            return
    with engine.embedded(_reference(engine, body.image), pixels, context.call) as image:
        if body.image_id is not None:
            engine.name(body.image_id, image)
        yield image


def _reference(engine: Engine, image: object) -> ImageRef:
    """Return the reference to the image of a request. Raises BadInput."""
    if image is None:
        raise BadInput("image", "an image, or the image_id of a cached image", "neither")
    image = ImageBody(type="base64", value=image) if isinstance(image, str) else image
    if not isinstance(image, ImageBody):
        raise BadInput("image", "one image", kind(image))
    if image.type == "numpy":
        raise BadInput("image", "type base64 or url (a numpy image is a pickle, which can run code)", "type numpy")
    if image.type not in ("base64", "url") or not isinstance(image.value, str):
        raise BadInput("image", '{"type": "base64" or "url", "value": text}', kind(image.value))
    return engine.images.reference(image.value, upright=True)


def image_count(body: ConceptBody | Sam2Body) -> int:
    """Return the number of images in a request; 1 for a request with an `image_id` only."""
    return len(body.image) if isinstance(body.image, list) else 1


def answer_images(body: Body, max_images: int | None, answer: Callable[[Body], dict[str, Any]]) -> Any:
    """Answer a request with one image or a list of images.

    Args:
        body: the request body.
        max_images: largest number of images; None for no limit.
        answer: returns the answer to a request with one image.

    Returns:
        The answer; for a list of images, the list of their answers.

    Raises:
        BadInput: the list is empty or too long, or has an `image_id`, which names one image; or as `answer`.
    """
    images = body.image
    if not isinstance(images, list):
        return answer(body)
    if not images:
        raise BadInput("image", "an image, or a list of at least one", "an empty list")
    check_count("image", len(images), max_images, "images")
    if body.image_id is not None and len(images) > 1:
        raise BadInput("image_id", "no image_id beside several images", "both")
    answers = []
    for number, image in enumerate(images):
        try:
            answers.append(answer(body.model_copy(update={"image": image})))
        except BadInput as error:
            raise error.renamed({"image": f"image[{number}]"}) from None
    return answers
