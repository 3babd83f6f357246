"""X-AnyLabeling's published client class with a video model, without a window, run in the environment .venv/tools.

xanylabeling_video.py URL FOLDER KEY MODEL SETTINGS: prints what the client shows and saves. FOLDER has frames.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

os.environ["QT_QPA_PLATFORM"] = "offscreen"


class Window:
    """The parts of the main window that the client reads while it runs over a video."""

    _batch_processing_active, cancel_processing, _progress_dialog = False, False, None

    def __init__(self, images: list[str]) -> None:
        self.image_list = images


def main(url: str, folder: str, key: str, model: str, work: str) -> dict[str, Any]:
    """Click on an object in frame 2, track it, correct it in frame 4, and open another folder."""
    from anylabeling import config
    from PyQt6.QtGui import QImage
    from PyQt6.QtWidgets import QApplication

    application = QApplication([])
    config.set_work_directory(work)
    config.current_config_file = str(Path(work) / "settings.yaml")
    remote = {"server_url": url, "api_key": key}
    Path(config.current_config_file).write_text(yaml.safe_dump({"remote_server_settings": remote}))

    from anylabeling.services.auto_labeling.remote_server import RemoteServer
    from anylabeling.views.labeling.utils import batch

    saved: dict[str, Any] = {}

    def points(result: Any) -> list[Any]:
        return [[[point.x(), point.y()] for point in shape.points] for shape in result.shapes]

    def save(widget: Any, file: str, result: Any) -> None:
        saved[Path(file).name] = points(result)

    batch.save_auto_labeling_result = save  # it would write a label file through the window
    messages: list[str] = []
    described = {"type": "remote_server", "name": "remote_server", "display_name": "remote"}
    client = RemoteServer({**described, "remote_server_settings": remote}, on_message=messages.append)
    images = sorted(map(str, Path(folder).iterdir()))
    client._widget = Window(images)
    client.get_available_models()
    client.set_model_id(model)
    modes = {}
    for task in (None, "images", "video"):
        client.set_task(task)
        modes[str(task)] = client.get_batch_processing_mode()

    def click(frame: int, x: int, y: int) -> list[Any]:
        client.set_auto_labeling_marks([{"type": "point", "data": [x, y], "label": 1}])
        return points(client.predict_shapes(QImage(images[frame]), images[frame]))

    def propagate() -> dict[str, Any]:
        saved.clear()
        client.set_auto_labeling_marks([])
        client.predict_shapes(QImage(images[0]), images[0], run_tracker=True)
        return dict(saved)

    found: dict[str, Any] = {"modes": modes, "click": click(2, 34, 48)}
    found["session"] = client.video_session_id
    found["propagated"] = propagate()
    found["corrected"] = click(4, 38, 48)
    found["same session"] = client.video_session_id == found["session"]
    found["after the correction"] = propagate()
    client._reset_video_session()
    client.video_session_id = found["session"]  # a session that is closed, as after a long break
    client.video_session_image_list, client.video_prompt_type = images, "point"
    found["expired"] = click(2, 34, 48)
    found["messages"] = list(messages)
    found["again"] = click(2, 34, 48)
    client._reset_video_session()
    application.quit()
    return found


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
