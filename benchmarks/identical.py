"""Check that two packaged models give the same responses, byte for byte.

Example:
  python -m benchmarks.identical OLD NEW --old-python ../old/.venv/bin/python

OLD and NEW are folders of MLflow models of the same checkpoint, packaged by two versions of this project. Each model
runs the code that it contains, in a separate process and a temporary folder. The exit code is 0 if all responses are
identical, 1 if a response differs, and 2 if a model cannot be used.
"""

from __future__ import annotations

import argparse
import csv
import json
import pickle
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(__file__).with_name("packaged_answers.py")
ENCODINGS = ("png", "rle", "polygon")
EVERYTHING = {"points_per_side": 16, "pred_iou_thresh": 0.7, "stability_score_thresh": 0.85}
SHOWN = 60  # characters of a differing value
ABSENT = object()
Answers = dict[str, list[dict[str, Any]]]  # one answer per row, by the name of the request


@dataclass(frozen=True)
class Request:
    """A table for `predict`.

    Attributes:
        name: what the request tests.
        rows: the rows, as cells by column name.
        params: params of all rows.
        refines: name of an earlier request. The first mask of each of its prompts becomes the prompt's `mask_input`.
    """

    name: str
    rows: list[dict[str, Any]]
    params: dict[str, Any]
    refines: str | None = None


def requests() -> list[Request]:
    """Return the requests to compare: the sample images with every kind of prompt and every mask encoding."""
    with (ROOT / "samples" / "prompts.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    images = {row["image"]: (ROOT / row["image"]).read_bytes() for row in table}
    columns = ("input_points", "input_labels", "input_boxes")
    prompts = [{"image": images[row["image"]], **{name: row[name] for name in columns}} for row in table]
    built = []
    for masks, multimask in (("1 mask", False), ("3 masks", True)):
        rows = [{**row, "multimask_output": multimask} for row in prompts]
        for encoding in ENCODINGS:
            params = {"mask_encoding": encoding, "return_logits": True}
            built.append(Request(f"prompts, {masks}, {encoding}", rows, params))
        built.append(Request(f"mask inputs, {masks}", rows, {"return_logits": True}, f"prompts, {masks}, rle"))
    everything = [{"image": image} for image in images.values()]
    params = {**EVERYTHING, "mask_encoding": "rle", "return_logits": True}
    return [*built, Request("everything, 16 x 16 points", everything, params)]


def answer(model: Path, python: str, tables: list[Request]) -> Answers:
    """Return a packaged model's answers to requests.

    Args:
        model: folder of the MLflow model.
        python: path of the Python interpreter.
        tables: the requests.

    Raises:
        RuntimeError: the model cannot be loaded, or fails. The message contains the end of the process's error output.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "requests.pickle").write_bytes(pickle.dumps([asdict(request) for request in tables]))
        # Isolated mode: neither PYTHONPATH nor the script's folder is searched for modules.
        command = [python, "-I", str(SCRIPT), str(model.resolve()), "requests.pickle", "answers.json"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"'{model}' with {python}:\n{done.stderr[-2000:]}")
        answers: Answers = json.loads((Path(folder) / "answers.json").read_text())
        return answers


def compare(old: Answers, new: Answers) -> bool:
    """Print a line for each identical request, up to the first difference. Return whether all are identical."""
    for name, answers in old.items():
        if difference := first_difference(answers, new[name], "rows"):
            print(f"different    {name}: {difference}")
            return False
        masks = sum(len(prediction["mask_per_prediction"]) for row in answers for prediction in row["predictions"])
        print(f"identical    {name}: {len(answers)} rows, {masks} masks, {len(json.dumps(answers)):,} bytes")
    return True


def first_difference(old: Any, new: Any, place: str = "") -> str | None:
    """Describe the first difference between two JSON values. Return None if they are equal.

    Numbers are equal only if their types and all their digits are equal.

    Args:
        old: a JSON value.
        new: another JSON value.
        place: the path of the values, for the description.

    Example:
        >>> first_difference([{"scores": [1.0, 2.0]}], [{"scores": [1.0, 2.5]}], "rows")
        'rows[0].scores[1]: 2.0 became 2.5'
    """
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(old.get(name, ABSENT), new.get(name, ABSENT), f"{place}.{name}") for name in {**old, **new}]
        pairs.append((list(old), list(new), f"names of {place}"))  # also finds a different order
    elif isinstance(old, list) and isinstance(new, list):
        pairs = [(*pair, f"{place}[{i}]") for i, pair in enumerate(zip_longest(old, new, fillvalue=ABSENT))]
    elif isinstance(old, str) and isinstance(new, str) and old != new:
        position = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        texts = (repr(text[position : position + SHOWN]) for text in (old, new))
        return f"{place}, from character {position} of {len(old)} and {len(new)}: {' became '.join(texts)}"
    elif type(old) is type(new) and repr(old) == repr(new):
        return None
    else:
        return f"{place}: {_shorten(old)} became {_shorten(new)}"
    return next(filter(None, (first_difference(*pair) for pair in pairs)), None)


def _shorten(value: object) -> str:
    text = "absent" if value is ABSENT else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.identical",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", metavar="OLD", type=Path, help="folder of an MLflow model")
    parser.add_argument("new", metavar="NEW", type=Path, help="folder of an MLflow model of the same checkpoint")
    parser.add_argument("--old-python", default=sys.executable, help="interpreter for OLD (default: this one)")
    parser.add_argument("--new-python", default=sys.executable, help="interpreter for NEW (default: this one)")
    options = parser.parse_args(arguments)
    tables = requests()
    try:
        old = answer(options.old, options.old_python, tables)
        new = answer(options.new, options.new_python, tables)
    except (OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if compare(old, new) else 1


if __name__ == "__main__":
    sys.exit(main())
