"""Read labelling configurations of Label Studio: the tags for images and the tags for masks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast
from xml.etree import ElementTree

from sam_endpoint.model.errors import BadInput, kind

MAX_CHARACTERS = 1_000_000
FILLED = {"BrushLabels": "brushlabels", "PolygonLabels": "polygonlabels"}
ResultType = Literal["brushlabels", "polygonlabels"]


@dataclass(frozen=True)
class Control:
    """A tag for masks.

    Attributes:
        name: name of the tag. Results for the tag have this name as `from_name`.
        to_name: name of the image tag that the tag for masks belongs to.
        type: type of the results for the tag.
        labels: the labels that the tag offers.
    """

    name: str
    to_name: str
    type: ResultType
    labels: tuple[str, ...]


@dataclass(frozen=True)
class LabelConfig:
    """A labelling configuration.

    Attributes:
        images: name of each image tag, and the key of `task["data"]` that contains the image.
        controls: the tags for masks. Tags for brush masks come first.
    """

    images: dict[str, str]
    controls: tuple[Control, ...]

    def control(self, to_name: str | None, label: str | None) -> Control:
        """Return the tag for the masks of an object.

        Args:
            to_name: name of the image tag, or None for any.
            label: label of the object, or None for an object without a label.

        Raises:
            BadInput: the image tag has no tag for masks.
        """
        own = [control for control in self.controls if to_name in (None, control.to_name)]
        if not own:
            raise BadInput("label_config", f"a tag {' or '.join(FILLED)} for the image", "a config without one")
        return next((control for control in own if label in control.labels), own[0])


def read_config(text: object) -> LabelConfig:
    """Read a labelling configuration.

    Raises:
        BadInput: the text is not XML, or has no image or no tag for masks.
    """
    if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
        raise BadInput("label_config", f"XML of at most {MAX_CHARACTERS:,} characters", kind(text))
    try:
        tags = list(ElementTree.fromstring(text).iter())
    except ElementTree.ParseError:
        raise BadInput("label_config", "XML", f"{kind(text)} that is not XML") from None
    images = {
        tag.get("name", ""): tag.get("value", "").removeprefix("$")
        for tag in tags
        if tag.tag == "Image" and tag.get("value", "").startswith("$")
    }
    if not images:
        raise BadInput(
            "label_config", "a tag Image with a variable such as $image as its value", "a config without one"
        )
    controls = [
        Control(tag.get("name", ""), tag.get("toName", ""), cast(ResultType, FILLED[tag.tag]), tuple(_labels(tag)))
        for name in FILLED
        for tag in tags
        if tag.tag == name and tag.get("toName") in images
    ]
    if not controls:
        raise BadInput("label_config", f"a tag {' or '.join(FILLED)} for an image", "a config without one")
    return LabelConfig(images, tuple(controls))


def _labels(control: ElementTree.Element) -> Iterable[str]:
    return (str(label.get("alias") or label.get("value") or "") for label in control.iter("Label"))
