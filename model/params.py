"""Request parameters: their names, types, ranges and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from . import masks
from .concepts.values import Thresholds
from .errors import BadModel, BadParameter, describe_name, kind
from .everything import MAX_POINTS, Grid

TASK = "mask-generation"  # of a checkpoint's config and of MLflow's metadata
RESPONSE_FORMATS = ("model_card", "azureml")
ON_ERROR = ("raise", "record")
ORIENTATIONS = ("stored", "upright")


@dataclass(frozen=True)
class Params:
    """The parameters of a request. `docs/contract.md` describes them for clients.

    Attributes:
        mask_encoding: text form of each mask: `png`, `rle` or `polygon`.
        response_format: `model_card` (the columns of `rows.OUTPUT_COLUMNS`) or `azureml` (the form of Azure's catalog).
        return_logits: whether each mask carries its low-resolution logits.
        on_error: `raise` fails the request at the first bad row; `record` writes each error into its own row.
        orientation: `stored` leaves pixels as the file stores them; `upright` applies the EXIF orientation.
        concept_thresh: minimum detection score of an instance of a concept.
        concept_nms_thresh: maximum mask IoU of two instances in one row, also of different concepts; None keeps all.
        exemplar_thresh: minimum similarity of an instance to an example, with models that compare embeddings.

    The other attributes are those of `everything.Grid`; they apply to rows without prompts.

    Example:
        >>> Params.read({"mask_encoding": "rle"}).mask_encoding
        'rle'
    """

    mask_encoding: str = "png"
    response_format: str = "model_card"
    return_logits: bool = False
    on_error: str = "raise"
    orientation: str = "stored"
    points_per_side: int = Grid.points_per_side
    points_per_batch: int = Grid.points_per_batch
    pred_iou_thresh: float = Grid.pred_iou_thresh
    stability_score_thresh: float = Grid.stability_score_thresh
    stability_score_offset: float = Grid.stability_score_offset
    box_nms_thresh: float = Grid.box_nms_thresh
    crop_n_layers: int = Grid.crop_n_layers
    crop_nms_thresh: float = Grid.crop_nms_thresh
    crop_overlap_ratio: float = Grid.crop_overlap_ratio
    crop_n_points_downscale_factor: int = Grid.crop_n_points_downscale_factor
    min_mask_region_area: int = Grid.min_mask_region_area
    concept_thresh: float = Thresholds.score
    concept_nms_thresh: float | None = Thresholds.nms
    exemplar_thresh: float = Thresholds.similarity

    @property
    def thresholds(self) -> Thresholds:
        """The filters of the instances of concepts."""
        return Thresholds(
            self.concept_thresh,
            self.concept_nms_thresh,
            self.exemplar_thresh,
            self.points_per_side,
            self.points_per_batch,
        )

    @property
    def upright(self) -> bool:
        """Whether the EXIF orientation is applied to images."""
        return self.orientation == "upright"

    @property
    def grid(self) -> Grid:
        """The parameters of automatic mask generation."""
        return Grid(**{field.name: getattr(self, field.name) for field in fields(Grid)})

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Params:
        """Check the parameters of a request and fill in the defaults.

        Args:
            values: values by parameter name; absent parameters get their defaults. A whole number may stand for a
                float.

        Raises:
            BadParameter: a name is unknown, or a value has the wrong type or is out of range.
        """
        known = {field.name: field for field in fields(cls)}
        for name, value in values.items():
            if name not in known:
                known_names = ", ".join(known)
                raise BadParameter(
                    f"unknown parameter {describe_name(name, known)}; the known parameters are {known_names}"
                )
            expected = param_type(name)
            if value is None and getattr(cls, name) is None:
                continue
            if expected is float and type(value) is int:
                continue
            if type(value) is not expected:
                raise BadParameter(f"parameter '{name}': expected {_TYPE_WORDS[expected]}, got {kind(value)}")
        params = cls(**values)
        for name, choices in _CHOICES.items():
            if getattr(params, name) not in choices:
                raise BadParameter(
                    f"parameter '{name}': expected {' or '.join(repr(choice) for choice in choices)}, "
                    f"got {describe_name(getattr(params, name), choices)}"
                )
        for name, (low, high) in _RANGES.items():
            if getattr(params, name) is None:
                continue
            if not low <= getattr(params, name) <= high:  # false for NaN too
                word = _TYPE_WORDS[param_type(name)]
                value = kind(getattr(params, name))
                raise BadParameter(f"parameter '{name}': expected {word} from {low:g} to {high:,}, got {value}")
        if params.grid.count > MAX_POINTS:
            raise BadParameter(
                f"parameters 'points_per_side', 'crop_n_layers': expected at most {MAX_POINTS:,} points in all crops, "
                f"got {params.grid.count:,}; lower one of them, or raise crop_n_points_downscale_factor"
            )
        return params


def param_type(name: str) -> type:
    """Return the type of a param: str, bool, int or float. A param whose default is None is a float."""
    default = getattr(Params, name)
    return float if default is None else type(default)


PARAM_NAMES = tuple(field.name for field in fields(Params))
_CHOICES = {
    "mask_encoding": masks.ENCODINGS,
    "response_format": RESPONSE_FORMATS,
    "on_error": ON_ERROR,
    "orientation": ORIENTATIONS,
}
_RANGES = {
    "points_per_side": (1, 128),
    "points_per_batch": (1, 1024),
    "pred_iou_thresh": (0, 1),
    "stability_score_thresh": (0, 1),
    "stability_score_offset": (0, 100),
    "box_nms_thresh": (0, 1),
    "crop_n_layers": (0, 3),
    "crop_nms_thresh": (0, 1),
    "crop_overlap_ratio": (0, 0.9),
    "crop_n_points_downscale_factor": (1, 128),
    "min_mask_region_area": (0, 10**9),
    "concept_thresh": (0, 1),
    "concept_nms_thresh": (0, 1),
    "exemplar_thresh": (0, 1),
}
_TYPE_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def checkpoint_params(config: Any) -> dict[str, Any]:
    """Return the default params of a checkpoint, by name.

    A checkpoint can list them in its `config.json`, as `task_specific_params` of the task `mask-generation`. A model
    whose scores are usually low needs lower thresholds than SAM's.

    Args:
        config: transformers' config of the model.

    Raises:
        BadModel: a param is unknown, has the wrong type or is out of range.

    Example:
        >>> from types import SimpleNamespace
        >>> checkpoint_params(SimpleNamespace(task_specific_params={"mask-generation": {"pred_iou_thresh": 0.7}}))
        {'pred_iou_thresh': 0.7}
    """
    by_task = getattr(config, "task_specific_params", None)
    params = by_task.get(TASK) if isinstance(by_task, dict) else None
    if params is None:
        return {}
    place = f"task_specific_params of '{TASK}' in the checkpoint's config.json"
    if not isinstance(params, dict):
        raise BadModel(f"{place}: expected an object, got {kind(params)}")
    try:
        Params.read(params)
    except BadParameter as error:
        raise BadModel(f"{place}: {error}") from None
    return params


@dataclass(frozen=True)
class ParamDefaults:
    """The default params of one deployment. The deployment's own defaults override those of the model.

    Attributes:
        packaged: defaults of the checkpoint, or those in the signature of the saved model, by name.
        deployed: defaults that the deployment sets in its `model_config`, by name.
    """

    packaged: Mapping[str, Any] = field(default_factory=dict)
    deployed: Mapping[str, Any] = field(default_factory=dict)

    def read(self, values: Mapping[str, Any]) -> Params:
        """Return the params of a request that sends only the params it changes.

        Raises:
            BadParameter: as `Params.read`.
        """
        return Params.read({**self.packaged, **self.deployed, **values})

    def read_filled(self, values: Mapping[str, Any]) -> Params:
        """Return the params of a request in which MLflow has replaced absent params by the signature's defaults.

        A value that equals the signature's default counts as absent, so the deployment's default applies.

        Raises:
            BadParameter: as `Params.read`.
        """
        return self.read({name: value for name, value in values.items() if value != self.packaged.get(name)})
