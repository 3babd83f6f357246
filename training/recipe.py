"""Run a recipe: a TOML file with the stages of a training. A stage trains a checkpoint or averages checkpoints.

python -m sam_endpoint.training.recipe training/recipes/sam-tiny.toml

To continue a stopped recipe, run the same command again. Finished stages are skipped, and an interrupted training
continues from its last saved state.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sam_endpoint.model.errors import BadData
from sam_endpoint.training.memory.options import MemoryPlan
from sam_endpoint.training.options import FAMILY_NAMES, Plan

Value = bool | int | float
RECIPE_KEYS = ("family", "stage")
STAGE_KEYS = ("kind", "inputs", "output", "cache", "photographs", "options")
MODULES = {
    "train": ("sam_endpoint", "train"),
    "mean": ("sam_endpoint.training.mean",),
    "memory": ("sam_endpoint.training.memory",),
}
OPTIONS: dict[str, dict[str, type]] = {
    "train": {"eager": bool, "bfloat16": bool, **{option.name: type(option.default) for option in fields(Plan)}},
    "mean": {"side": int},
    "memory": {option.name: type(option.default) for option in fields(MemoryPlan)},
}
INPUTS = {"train": "at most one checkpoint to start from", "mean": "one checkpoint or more", "memory": "one checkpoint"}
# The file in the output of a finished stage. The checkpoint itself proves nothing: a training saves it at intervals.
FINISHED = "stage.json"


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe.

    Attributes:
        kind: "train", "mean" or "memory".
        family: One of FAMILY_NAMES.
        output: The name of the checkpoint: a folder within the output folder.
        inputs: Outputs of earlier stages, or folders of other checkpoints. A "train" stage has at most one, a "mean"
            stage at least one, and a "memory" stage exactly one.
        cache: The name of the folder for scenes and state, within the cache folder.
        photographs: The names of folders of photographs, within the recipe's folder of photographs. Only "train" stages
            have photographs.
        options: Options of the stage's command, with underscores instead of hyphens.
    """

    kind: str
    family: str
    output: str
    inputs: tuple[str, ...] = ()
    cache: str = ""
    photographs: tuple[str, ...] = ()
    options: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """The stages of a recipe.

    Attributes:
        stages: The stages, in order.
        output: The folder that contains the outputs of all stages.
        cache: The folder that contains the caches of all stages.
        photographs: The folder that contains the photographs of all stages; None if there are none.
    """

    stages: tuple[Stage, ...]
    output: Path = Path("build")
    cache: Path = Path(".cache")
    photographs: Path | None = None

    def arguments(self, stage: Stage) -> list[str]:
        """Return the arguments of a stage's command. Raises BadData if the recipe has no folder of photographs."""
        earlier = [other.output for other in self.stages[: self.stages.index(stage)]]
        inputs = [str(self.output / name) if name in earlier else name for name in stage.inputs]
        words = ["--output", str(self.output / stage.output)]
        if stage.kind != "memory":
            words = ["--family", stage.family, *words]
        if stage.kind == "mean":
            words = [*inputs, *words]
        else:
            words += ["--cache", str(self.cache / stage.cache)]
            if inputs:
                words += ["--start", inputs[0]]
            if stage.photographs:
                if self.photographs is None:
                    names = ", ".join(stage.photographs)
                    raise BadData(f"stage {stage.output} needs --photos, a folder with the folders {names}")
                words += ["--photos", *(str(self.photographs / name) for name in stage.photographs)]
        for name, value in stage.options.items():
            option = f"--{name.replace('_', '-')}"
            if value is True:
                words.append(option)
            elif value is not False:
                words += [option, str(value)]
        return words

    def command(self, stage: Stage) -> list[str]:
        """Return the command line of a stage."""
        return [sys.executable, "-m", *MODULES[stage.kind], *self.arguments(stage)]

    def is_finished(self, stage: Stage) -> bool:
        """Return whether a stage's output is complete. Raises BadData if the output belongs to another stage."""
        record = self.output / stage.output / FINISHED
        if not record.exists():
            return False
        if record.read_text() != _to_json(stage):
            folder = self.output / stage.output
            raise BadData(f"'{folder}' is the output of another stage; remove the folder, or choose another --output")
        return True

    def run(self) -> int:
        """Run all stages that are not finished. Return 0, or the exit code of the first stage that fails.

        Raises BadData before the first stage if a stage lacks its photographs.
        """
        commands = [self.command(stage) for stage in self.stages]
        for stage, command in zip(self.stages, commands, strict=True):
            if self.is_finished(stage):
                print(f"finished    {stage.output}", flush=True)
                continue
            print(f"running     {shlex.join(command[1:])}", flush=True)
            code = subprocess.run(command).returncode
            if code:
                return code
            (self.output / stage.output / FINISHED).write_text(_to_json(stage))
        return 0


def read_recipe(
    file: Path, output: Path = Recipe.output, cache: Path = Recipe.cache, photographs: Path | None = None
) -> Recipe:
    """Read a recipe from a TOML file.

    Args:
        file: The file.
        output: The folder for the outputs of the stages.
        cache: The folder for the caches of the stages.
        photographs: The folder of the photographs; None if there are none.

    Raises:
        BadData: The file cannot be read, or contains an invalid key or value.
    """
    try:
        content = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BadData(f"'{file}' cannot be read as a recipe: {error}") from None
    _check_keys(f"'{file}'", "key", content, RECIPE_KEYS)
    family, tables = content.get("family"), content.get("stage")
    if family not in FAMILY_NAMES:
        raise BadData(f"'{file}': family: expected one of {', '.join(FAMILY_NAMES)}, got {family!r}")
    if not isinstance(tables, list) or not tables:
        raise BadData(f"'{file}': expected tables [[stage]]")
    stages: list[Stage] = []
    for number, table in enumerate(tables, 1):
        name = table.get("output") if isinstance(table, dict) else None
        place = f"'{file}', stage {number} ({name})" if name else f"'{file}', stage {number}"
        stage = _read_stage(place, table, family)
        outputs = [earlier.output for earlier in stages]
        if stage.output in outputs:
            raise BadData(f"{place}: output: an earlier stage has the same")
        for folder in stage.inputs:
            if folder not in outputs and not Path(folder).is_dir():
                raise BadData(f"{place}: inputs: '{folder}' is neither the output of an earlier stage nor a folder")
        stages.append(stage)
    return Recipe(tuple(stages), output, cache, photographs)


def _read_stage(place: str, table: Any, family: str) -> Stage:
    if not isinstance(table, dict):
        raise BadData(f"{place}: expected a table, got {table!r}")
    _check_keys(place, "key", table, STAGE_KEYS)
    kind, output, inputs = table.get("kind"), table.get("output"), table.get("inputs", [])
    cache, options, photographs = table.get("cache", ""), table.get("options", {}), table.get("photographs", [])
    if kind not in OPTIONS:
        raise BadData(f"{place}: kind: expected one of {', '.join(OPTIONS)}, got {kind!r}")
    if not isinstance(output, str) or not output:
        raise BadData(f"{place}: output: expected the name of a folder, got {output!r}")
    if not isinstance(inputs, list) or not all(isinstance(name, str) for name in inputs):
        raise BadData(f"{place}: inputs: expected a list of names, got {inputs!r}")
    if not isinstance(cache, str) or (cache and kind == "mean"):
        raise BadData(f"{place}: cache: expected the name of a training's folder, got {cache!r}")
    names = isinstance(photographs, list) and all(isinstance(name, str) for name in photographs)
    if not names or (photographs and kind != "train"):
        raise BadData(f"{place}: photographs: expected a list of a training's folders, got {photographs!r}")
    if (kind != "mean" and len(inputs) > 1) or (kind != "train" and not inputs):
        raise BadData(f"{place}: inputs: expected {INPUTS[kind]}, got {len(inputs)}")
    if not isinstance(options, dict):
        raise BadData(f"{place}: options: expected a table, got {options!r}")
    _check_keys(place, "option", options, OPTIONS[kind])
    for name, value in options.items():
        expected_type = OPTIONS[kind][name]
        accepted = (int, float) if expected_type is float else (expected_type,)
        if type(value) not in accepted:
            raise BadData(f"{place}: option '{name}': expected a value of type {expected_type.__name__}, got {value!r}")
    return Stage(kind, family, output, tuple(inputs), cache, tuple(photographs), options)


def _check_keys(place: str, what: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
    for key in table:
        if key not in known:
            raise BadData(f"{place}: unknown {what} '{key}'; expected one of {', '.join(known)}")


def _to_json(stage: Stage) -> str:
    return json.dumps(asdict(stage), indent=2) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="TOML file of the recipe")
    parser.add_argument(
        "--output", type=Path, default=Recipe.output, help="folder for the checkpoints (default: %(default)s)"
    )
    parser.add_argument(
        "--cache", type=Path, default=Recipe.cache, help="folder for scenes, states and logs (default: %(default)s)"
    )
    parser.add_argument("--photos", type=Path, help="folder of the photographs, for stages that train on photographs")
    parser.add_argument("--dry-run", action="store_true", help="print the command of each stage without running it")
    options = parser.parse_args(arguments)
    try:
        recipe = read_recipe(options.recipe, options.output, options.cache, options.photos)
        if options.dry_run:
            print("\n".join(shlex.join(recipe.command(stage)[1:]) for stage in recipe.stages))
            return 0
        return recipe.run()
    except BadData as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command continues from the last saved state", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
