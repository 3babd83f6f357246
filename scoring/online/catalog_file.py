"""Read the catalog file, which lists the served models and their names."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from sam_endpoint.model.errors import BadModel
from sam_endpoint.model.saved import SavedModel
from sam_endpoint.scoring.runtime import LocatedModel, one_line

# Model names that clients of other systems request, by family.
WELL_KNOWN = {
    "sam": ["sam/vit_b", "sam/vit_l", "sam/vit_h"] + [f"facebook/sam-vit-{size}" for size in ("base", "large", "huge")],
    "sam2": [f"sam2/hiera_{size}" for size in ("tiny", "small", "b_plus", "large")]
    + [f"facebook/sam2{dot}-hiera-{size}" for dot in ("", ".1") for size in ("tiny", "small", "base-plus", "large")],
}


class Entry(BaseModel):
    """One model of the catalog file: a checkpoint or an MLflow model, and the names under which it is served."""

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
    """Content of the catalog file."""

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
                    raise ValueError(f"'{name}' names both {owners[name]} and {key}")
                owners[name] = key
        return self


def read_catalog(path: Path) -> CatalogFile:
    """Read a catalog file. Raises BadModel for a file that cannot be read or is invalid."""
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
    """Return the catalog of a single MLflow model, served under all well-known names of its family.

    Raises:
        BadModel: there is no such model, or it cannot be used.
    """
    metadata = SavedModel.read(model.folder).metadata
    name = str(metadata.get("base_model", "model"))
    aliases = [alias for alias in WELL_KNOWN.get(str(metadata.get("family")), []) if alias != name]
    entry = Entry(model=model.source, warm=True, stands_in_for=aliases)
    return CatalogFile(default=name, models={name: entry})
