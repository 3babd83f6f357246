"""The tracking function as CVAT's agent calls it, run in the environment .venv/tools.

cvat_tracking.py FUNCTION URL FOLDER KEY SHAPES: tracks the shapes, JSON, of the first image of a folder. Prints as JSON
the shapes in the other images, and the fields with which the function is registered.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cvat_sdk.auto_annotation as cvataa
import PIL.Image
from cvat_cli._internal import agent_driver_tracking as driver
from cvat_cli._internal.common import FunctionLoader


def main(file: str, url: str, folder: str, key: str, shapes: str) -> dict[str, Any]:
    """Track each shape, and track one with a wrong key."""
    function: Any = FunctionLoader(None, Path(file), {"url": url, "kind": "tracking", "key": key}).load()
    context = driver._TrackingFunctionContextImpl()
    images = [PIL.Image.open(image) for image in sorted(Path(folder).iterdir())]
    first, *others = [function.preprocess_image(context, image) for image in images]
    given = [cvataa.TrackableShape(**shape) for shape in json.loads(shapes)]
    contexts = [driver._TrackingFunctionShapeContextImpl(original_shape_type=shape.type) for shape in given]
    states = [function.init_tracking_state(own, first, shape) for own, shape in zip(contexts, given, strict=True)]
    found: dict[str, Any] = {
        "fields": driver.AgentTrackingFunctionDriver.get_remote_function_fields(function.spec),
        "shapes": [
            [vars_of(function.track(own, image, state)) for own, state in zip(contexts, states, strict=True)]
            for image in others
        ],
    }
    stranger: Any = FunctionLoader(None, Path(file), {"url": url, "kind": "tracking", "key": "wrong"}).load()
    try:
        stranger.init_tracking_state(contexts[0], first, given[0])
    except Exception as error:
        found["refused"] = str(error)
    return found


def vars_of(shape: cvataa.TrackableShape | None) -> dict[str, Any] | None:
    """Return the fields of a shape."""
    return None if shape is None else {"type": shape.type, "points": shape.points}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
