"""The table contract: the names of the columns, and functions that parse the rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from .concepts import Concept
from .concepts.parsing import parse_concepts
from .errors import MAX_NAME, BadInput, kind
from .images import ImageRef
from .prompts import Prompt, parse_prompts
from .prompts.cells import is_empty, is_missing

MAX_ID = 512  # characters of an image_id
MAX_NAMES = 1000  # columns whose names are checked for typing errors
COLUMNS = (
    "image",
    "input_points",
    "input_boxes",
    "input_labels",
    "multimask_output",
    "image_id",
    "mask_input",
    "input_text",
    "input_exemplars",
    "input_exemplar_labels",
    "input_exemplar_image",
)
VIDEO_COLUMNS = ("video", "prompts")
OUTPUT_COLUMNS = ("predictions", "image_id", "error")
PROMPT_COLUMNS = ("input_points", "input_labels", "input_boxes", "mask_input")
CONCEPT_COLUMNS = ("input_text", "input_exemplars", "input_exemplar_labels", "input_exemplar_image")
# Names that other tools use for the prompt columns.
SYNONYMS = {
    **dict.fromkeys(("box", "boxes", "bbox", "bboxes"), "input_boxes"),
    **dict.fromkeys(("point", "points", "point_coords"), "input_points"),
    "point_labels": "input_labels",
}
MIN_SIMILARITY = 0.85  # from 0 to 1; a name this similar to a known column is a typing error
# CSV files hold flags as text. If a column of flags has empty cells, pandas and spreadsheets write 1.0 for true.
FLAG_TEXT = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
ReadReference = Callable[[object], ImageRef]


@dataclass(frozen=True)
class Row:
    """One parsed row of a table: an image and its prompts.

    Attributes:
        index: the index label of the row.
        image: reference to the image, or None if `image_id` names a cached image.
        image_id: the client's name for the image, or None.
        prompts: the prompts; None if the row has no prompts. Such a row requests the objects that `concepts` describes,
            or, without concepts, every object in the image.
        multimask_output: whether each prompt gets 3 masks or 1.
        concepts: descriptions of objects by text or by examples (see `concepts.Concept`), or None.
        examples_image: reference to the image that contains the examples; None if the examples are in `image`.
    """

    index: object
    image: ImageRef | None
    image_id: str | None
    prompts: Sequence[Prompt] | None
    multimask_output: bool
    concepts: Sequence[Concept] | None = None
    examples_image: ImageRef | None = None

    @property
    def is_everything(self) -> bool:
        """Whether the row requests every object in the image."""
        return self.prompts is None and self.concepts is None

    @property
    def prompt_count(self) -> int:
        """Number of prompts, texts and examples."""
        return len(self.prompts or ()) + sum(max(1, len(concept.boxes)) for concept in self.concepts or ())


def column_names(names: Iterable[object]) -> dict[object, object]:
    """Map the column names of a table to the names in COLUMNS.

    The comparison ignores case, surrounding spaces and a byte-order mark, and treats spaces and hyphens as underscores.

    Args:
        names: the column names of the table.

    Returns:
        For each name, the matching name in COLUMNS, or the name itself if there is no match.

    Raises:
        BadInput: two columns match the same name, or a prompt column seems to be misspelt. Without this check, every
            row of a table with a misspelt prompt column would request every object in its image.

    Example:
        >>> column_names(["Image", "input-boxes", "weight"])
        {'Image': 'image', 'input-boxes': 'input_boxes', 'weight': 'weight'}
    """
    original = list(names)
    plain = [_plain_name(name) for name in original]
    known = (*COLUMNS, *VIDEO_COLUMNS)
    renamed = [text if text in known else name for text, name in zip(plain, original, strict=True)]
    for column in known:
        if (count := renamed.count(column)) > 1:
            raise BadInput(column, "one column of this name", str(count))
    columns = (*PROMPT_COLUMNS, *CONCEPT_COLUMNS, "multimask_output")
    absent = [column for column in columns if column not in renamed]
    for name in plain[:MAX_NAMES]:
        intended = _intended_column(name, absent)
        if intended is not None:
            raise BadInput(name, f"the name '{intended}' (rename the column)", "an unknown column name")
    return dict(zip(original, renamed, strict=True))


def _plain_name(name: object) -> str:
    return name.strip("\ufeff \t\r\n").lower().replace(" ", "_").replace("-", "_") if isinstance(name, str) else ""


def _intended_column(name: str, absent: Sequence[str]) -> str | None:
    """Return the absent column whose name a client probably meant to write, or None."""
    if name in (*COLUMNS, *VIDEO_COLUMNS) or not 3 <= len(name) <= MAX_NAME:
        return None
    if name in SYNONYMS and all(column in absent for column in PROMPT_COLUMNS):
        return SYNONYMS[name]
    return next(iter(get_close_matches(name, absent, 1, MIN_SIMILARITY)), None)


def read_rows(frame: pd.DataFrame, reference: ReadReference, max_prompts: int | None = None) -> list[Row | BadInput]:
    """Parse every row of a table.

    Args:
        frame: a table with the columns of COLUMNS; other columns are ignored.
        reference: parses a cell of the `image` column, for example `ImageReader.reference`.
        max_prompts: maximum number of prompts in a row, and of points in a prompt; None for no limit.

    Returns:
        One item per row, in order: the parsed row, or the error of a row that cannot be parsed.
    """
    present = [name for name in COLUMNS if name in frame.columns]
    rows: list[Row | BadInput] = []
    for index, *cells in zip(frame.index, *(frame[name] for name in present), strict=True):
        try:
            rows.append(read_row(index, dict(zip(present, cells, strict=True)), reference, max_prompts))
        except BadInput as error:
            failed = error.at(index)
            failed.image_id = _known_id(cells[present.index("image_id")]) if "image_id" in present else None
            rows.append(failed)
    return rows


def read_row(index: object, cells: Mapping[str, Any], reference: ReadReference, max_prompts: int | None = None) -> Row:
    """Parse one row.

    Args:
        index: the index label of the row.
        cells: the cells of the row by column name.
        reference: as in `read_rows`.
        max_prompts: as in `read_rows`.

    Raises:
        BadInput: a cell is invalid.
    """
    present = {name: value for name, value in cells.items() if not is_missing(value)}
    image, image_id = present.get("image"), present.get("image_id")
    if image is None and image_id is None:
        raise BadInput("image", "base64 text, an http(s) URL or bytes (or the image_id of a cached image)", "nothing")
    points, labels, boxes, masks = (cells.get(name) for name in PROMPT_COLUMNS)
    prompts = parse_prompts(points, labels, boxes, masks, max_prompts)
    # An empty list of prompts, for example from a detector without detections, requests no masks. Only a row without
    # prompt cells requests every object.
    everything = not prompts and not any(map(is_empty, (points, boxes, masks)))
    concepts = _read_concepts(cells, prompts, not everything, max_prompts)
    examples_image = present.get("input_exemplar_image")
    if examples_image is not None and not any(len(concept.boxes) for concept in concepts or ()):
        raise BadInput("input_exemplars", "boxes around examples in the image of input_exemplar_image", "nothing")
    return Row(
        index=index,
        image=None if image is None else reference(image),
        image_id=None if image_id is None else _read_id(image_id),
        prompts=None if everything else prompts,
        multimask_output=_read_flag("multimask_output", present.get("multimask_output", True)),
        concepts=concepts,
        examples_image=None if examples_image is None else _read_examples_image(examples_image, reference),
    )


def _read_concepts(
    cells: Mapping[str, Any], prompts: Sequence[Prompt], prompted: bool, max_prompts: int | None
) -> list[Concept] | None:
    """Parse the concepts of a row. A row must not have both concepts and prompts.

    Args:
        cells: the cells of the row by column name.
        prompts: the prompts of the row.
        prompted: whether the row has prompts, or an empty list of them.
        max_prompts: as in `read_rows`.
    """
    texts, boxes, labels = (cells.get(name) for name in CONCEPT_COLUMNS[:3])
    concepts = parse_concepts(texts, boxes, labels, max_prompts)
    if concepts and prompts:
        column = "input_text" if concepts[0].text else "input_exemplars"
        raise BadInput(column, "either concepts or points, boxes and masks (send two rows)", "both in one row")
    if concepts is None and not prompted and isinstance(texts, str) and not texts.strip():
        raise BadInput("input_text", "a text, or null for every object in the image", "an empty text")
    return None if prompts else concepts


def _read_examples_image(value: object, reference: ReadReference) -> ImageRef:
    """Parse a cell of `input_exemplar_image`: an image, or the `image_id` of an image.

    A short text that is neither a URL nor a path is an `image_id`, because no useful image is that small.
    """
    if isinstance(value, (int, float, np.number)):
        return ImageRef.id(_read_id(value))
    try:
        ref = reference(value)
    except BadInput as error:
        expected = f"an image_id, or {error.expected}"
        raise BadInput("input_exemplar_image", expected, error.got) from None
    is_id = ref.kind == "base64" and value == ref.value and len(ref.value) <= MAX_ID
    return ImageRef.id(str(value)) if is_id else ref


def unfold(frame: pd.DataFrame) -> pd.DataFrame:
    """Undo MLflow's folding of columns into a single row.

    MLflow parses the body `{"inputs": {"image": ["a", "b"], "input_boxes": ["[...]", "[...]"]}}` to a single row with
    lists in its cells if all values are text. This function recognises such a row by a list of text in the column
    `image` or `image_id`, because no valid cell of these columns is a list of text.

    Args:
        frame: a table with the columns of COLUMNS.

    Returns:
        A table with one row per image, or `frame` itself if it is not folded.

    Raises:
        BadInput: the lists differ in length.

    Example:
        >>> unfold(pd.DataFrame({"image": [["a", "b"]]}))["image"].tolist()
        ['a', 'b']
    """
    names = [name for name in ("image", "image_id") if name in frame.columns]
    if len(frame) != 1 or not any(_is_list_of_text(frame[name].iloc[0]) for name in names):
        return frame
    cells = {name: frame[name].iloc[0] for name in frame.columns}
    lengths = {name: len(cell) if isinstance(cell, list) else 1 for name, cell in cells.items()}
    for name, length in lengths.items():
        if length != lengths[names[0]]:
            raise BadInput(name, f"as many values as '{names[0]}' has ({lengths[names[0]]})", str(length))
    columns = {name: cell if isinstance(cell, list) else [cell] for name, cell in cells.items()}
    return pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in columns.items()})


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _read_id(value: object) -> str:
    """Return an id as text. 7.0 is the same id as 7, because pandas turns a 7 in a column with empty cells into 7.0."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, np.integer)) or len(text := str(value)) > MAX_ID:
        raise BadInput("image_id", f"text of at most {MAX_ID} characters, or a whole number", kind(value))
    return text


def _known_id(value: object) -> str | None:
    """Return the id in a cell of `image_id`, or None if the cell is empty or has no id."""
    try:
        return None if is_missing(value) else _read_id(value)
    except BadInput:
        return None


def _read_flag(column: str, value: object) -> bool:
    if isinstance(value, (bool, np.bool_, int, float, np.integer, np.floating)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and (flag := FLAG_TEXT.get(value.strip().lower())) is not None:
        return flag
    raise BadInput(column, "true or false", kind(value))
