"""Read and validate the catalog file, which lists the served models and their names."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from sam_endpoint.model.errors import BadModel
from sam_endpoint.model.saved import SavedModel
from sam_endpoint.scoring.runtime import LocatedModel, one_line

# The model names that clients of Roboflow and Hugging Face use, by family.
WELL_KNOWN = {
    "sam": ["sam/vit_b", "sam/vit_l", "sam/vit_h"] + [f"facebook/sam-vit-{size}" for size in ("base", "large", "huge")],
    "sam2": [f"sam2/hiera_{size}" for size in ("tiny", "small", "b_plus", "large")]
    + [f"facebook/sam2{dot}-hiera-{size}" for dot in ("", ".1") for size in ("tiny", "small", "base-plus", "large")],
    "sam3": ["sam3/sam3_final", "facebook/sam3"],
}


class Entry(BaseModel):
    """One model of the catalog file. Exactly one of `checkpoint` and `model` is set.

    Attributes:
        checkpoint: a folder (relative to the catalog file), a Hugging Face id, or one of Meta's checkpoint files.
        model: an MLflow model URI.
        warm: whether the model is loaded at start.
        names: further names of the model.
        stands_in_for: names of other models. This model answers requests for them, and the log and `/models` say so.
    """

    model_config = ConfigDict(extra="forbid")
    checkpoint: str | None = None
    model: str | None = None
    warm: bool = False
    names: list[str] = []
    stands_in_for: list[str] = []

    @model_validator(mode="after")
    def _one_source(self) -> Entry:
        if (self.checkpoint is None) == (self.model is None):
            raise ValueError("expected one of `checkpoint` and `model`")
        return self


class CatalogFile(BaseModel):
    """The content of a catalog file.

    Attributes:
        default: key of the model that answers requests without a model name.
        models: the models by key. The key is the model's main name.

    Example:
        >>> catalog = CatalogFile(default="a", models={"a": Entry(checkpoint="checkpoints/sam-tiny", names=["b"])})
        >>> catalog.models["a"].names
        ['b']
    """

    model_config = ConfigDict(extra="forbid")
    default: str
    models: dict[str, Entry]

    @model_validator(mode="after")
    def _names_are_unique(self) -> CatalogFile:
        if self.default not in self.models:
            raise ValueError(f"default '{self.default}' is not among the models {', '.join(self.models)}")
        owners: dict[str, str] = {}
        for key, entry in self.models.items():
            for name in (key, *entry.names, *entry.stands_in_for):
                if name in owners:
                    raise ValueError(f"'{name}' is a name of two models, {owners[name]} and {key}")
                owners[name] = key
        return self


def read_catalog(path: Path) -> CatalogFile:
    """Read a catalog file.

    Args:
        path: path of a YAML file.

    Raises:
        BadModel: the file cannot be read, is not YAML, or is not a valid catalog.
    """
    try:
        return CatalogFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        faults = (
            f"{'.'.join(map(str, fault['loc'])) or 'content'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        )
        reason = "; ".join(faults)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = "it is not YAML" + (f": line {mark.line + 1}, column {mark.column + 1}" if mark else "")
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except (OSError, ValueError) as error:
        reason = one_line(error)
    raise BadModel(f"catalog {path}: {reason}")


def catalog_of_model(model: LocatedModel) -> CatalogFile:
    """Return a catalog of a single MLflow model that answers to all well-known names of its family.

    Args:
        model: the model, resolved to a local folder.

    Raises:
        BadModel: the folder does not hold a usable model.
    """
    metadata = SavedModel.read(model.folder).metadata
    name = str(metadata.get("base_model", "model"))
    aliases = [alias for alias in WELL_KNOWN.get(str(metadata.get("family")), []) if alias != name]
    entry = Entry(model=model.source, warm=True, stands_in_for=aliases)
    return CatalogFile(default=name, models={name: entry})
