"""Send requests to a packaged model, and write its answers as JSON.

Usage: python -I packaged_answers.py MODEL REQUESTS ANSWERS

`benchmarks.identical` runs this script in a process that must not import this project. So the script imports nothing of
it.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

Rows = list[dict[str, Any]]


def answer(model: Any, requests: list[dict[str, Any]]) -> dict[str, Rows]:
    """Return the answers to each request, by its name. `identical.Request` describes the fields of a request."""
    answers: dict[str, Rows] = {}
    for request in requests:
        rows: Rows = [dict(row) for row in request["rows"]]
        for row, earlier in zip(rows, answers.get(request["refines"], []), strict=False):
            masks = [prediction["mask_per_prediction"][0] for prediction in earlier["predictions"]]
            row["mask_input"] = [mask["low_res_logits"] for mask in masks]
        frame = model.predict(pd.DataFrame(rows, dtype=object), request["params"])
        answers[request["name"]] = frame.to_dict("records")
    return answers


def check_modules(model: Path) -> None:
    """Check that all loaded modules come from the interpreter's folders or from the model.

    Raises:
        ImportError: a module comes from another folder, such as a checkout of this project.
    """
    allowed = [model, Path(__file__), *(Path(folder).resolve() for folder in (sys.prefix, sys.base_prefix))]
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "")
        # Modules that are created at runtime have a relative path: `_ops.py` of torch.ops.
        if file.is_absolute() and not any(file.resolve().is_relative_to(folder) for folder in allowed):
            raise ImportError(f"module '{name}' comes from {file}, not from the packaged model")


def main(model: Path, requests: Path, answers: Path) -> None:
    """Read requests from a file, and write the answers of a model to another file."""
    loaded = mlflow.pyfunc.load_model(str(model))
    answers.write_text(json.dumps(answer(loaded, pickle.loads(requests.read_bytes()))))
    check_modules(model)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
