"""X-AnyLabeling's published client class without a window, run in the environment .venv/tools.

xanylabeling.py URL IMAGE KEY FOLDER: prints the shapes that it would show as JSON. FOLDER takes its settings.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

os.environ["QT_QPA_PLATFORM"] = "offscreen"
BOXES = ([68, 38, 153, 123], [20, 10, 60, 30])


def main(url: str, image: str, key: str, folder: str) -> dict[str, Any]:
    """Ask as the window does after each of the user's actions."""
    from anylabeling import config
    from PyQt6.QtGui import QImage
    from PyQt6.QtWidgets import QApplication

    application = QApplication([])
    settings = Path(folder) / "settings.yaml"
    config.set_work_directory(folder)
    config.current_config_file = str(settings)

    from anylabeling.services.auto_labeling.remote_server import RemoteServer

    messages: list[str] = []

    def connect(api_key: str) -> Any:
        remote = {"server_url": url, "api_key": api_key}
        settings.write_text(yaml.safe_dump({"remote_server_settings": remote}))
        described = {"type": "remote_server", "name": "remote_server", "display_name": "remote"}
        return RemoteServer({**described, "remote_server_settings": remote}, on_message=messages.append)

    client, picture = connect(key), QImage(image)
    models = client.get_available_models()
    client.set_model_id("sam-tiny")

    def predict(*marks: dict[str, Any], path: str | None = image, **options: Any) -> dict[str, Any]:
        client.set_auto_labeling_marks(list(marks))
        result = client.predict_shapes(picture, path, **options)
        shapes = [
            {
                "label": shape.label,
                "type": shape.shape_type,
                "points": [[point.x(), point.y()] for point in shape.points],
                "score": shape.score,
                "group": shape.group_id,
            }
            for shape in result.shapes
        ]
        return {"replace": result.replace, "shapes": shapes}

    def point(x: int, y: int, label: int = 1) -> dict[str, Any]:
        return {"type": "point", "data": [x, y], "label": label}

    def rectangle(box: list[int]) -> dict[str, Any]:
        return {"type": "rectangle", "data": box, "label": 1}

    found: dict[str, Any] = {
        "models": models,
        "mode": client.get_batch_processing_mode(),
        "point": predict(point(110, 80)),
        "points": predict(point(110, 80), point(10, 10, 0)),
        "unsaved": predict(point(110, 80), path=None),
        "rectangle": predict(rectangle(BOXES[0])),
        "several": predict(rectangle(BOXES[0]), rectangle(BOXES[1]), point(110, 80)),
        "everything": predict(),
        "text": predict(text_prompt="disc."),
    }
    client.set_mask_fineness(0.02)
    found["coarse"] = predict(point(110, 80))
    found["messages_before"] = list(messages)
    stranger = connect("wrong")
    found["stranger_models"] = stranger.get_available_models()
    stranger.set_model_id("sam-tiny")
    found["stranger_shapes"] = len(stranger.predict_shapes(picture, image).shapes)
    found["messages"] = messages
    application.quit()
    return found


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
