"""The interaction function as CVAT's agent calls it, run in the environment .venv/tools.

cvat_interaction.py FUNCTION URL IMAGE KEY: prints the shapes for a few prompts as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import PIL.Image
from cvat_cli._internal import agent_driver_interaction as driver
from cvat_cli._internal.common import FunctionLoader


def main(file: str, url: str, image: str, key: str) -> dict[str, Any]:
    """Return the shapes, and the fields with which the function is registered."""
    function: Any = FunctionLoader(None, Path(file), {"url": url, "kind": "interaction", "key": key}).load()
    context = driver._InteractionFunctionContextImpl()
    picture = function.preprocess_image(context, PIL.Image.open(image))

    def detect(pos: Any = (), neg: Any = (), box: Any = None) -> Any:
        prompts = driver._InteractionPromptsImpl(pos_points=tuple(pos), neg_points=tuple(neg), bounding_box=box)
        return [
            {
                "type": shape.type,
                "points": shape.points,
                "attributes": [[attribute.spec_id, attribute.value] for attribute in shape.attributes],
            }
            for shape in function.detect(context, picture, prompts)
        ]

    found = {
        "fields": driver.AgentInteractionFunctionDriver.get_remote_function_fields(function.spec),
        "point": detect([(110, 80)]),
        "points": detect([(110, 80)], [(10, 10)]),
        "box": detect(box=((68, 38), (153, 123))),
        "nothing": detect(),
    }
    stranger: Any = FunctionLoader(None, Path(file), {"url": url, "kind": "interaction", "key": "wrong"}).load()
    try:
        stranger.detect(
            context, picture, driver._InteractionPromptsImpl(pos_points=((1, 1),), neg_points=(), bounding_box=None)
        )
    except Exception as error:
        found["refused"] = str(error)
    return found


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
