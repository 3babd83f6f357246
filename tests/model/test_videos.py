"""The columns `video` and `prompts` of a table: through MLflow's pyfunc, with bytes, base64 and paths."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel

from sam_endpoint.model.budget import NO_LIMITS, RequestLimits
from sam_endpoint.model.errors import BadInput, BadRequest
from sam_endpoint.model.masks import decode
from sam_endpoint.model.params import Params
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.model.segmenter import Segmenter
from tests.engines import engine_of
from tests.pictures import iou
from tests.videos import cut, disc_frames, write_video

COUNT = 5
FRAMES, MASKS = disc_frames(COUNT)
PROMPTS = json.dumps(
    [{"frame": 0, "object": 1, "points": [[30, 48]]}, {"frame": 2, "object": 7, "box": [16, 30, 52, 66]}]
)
PLACES = [(0, 1), (1, 1), (2, 1), (2, 7), (3, 1), (3, 7), (4, 1), (4, 7)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a video of a moving disc."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.webp", FRAMES)


def check_answer(answer: Any, encoding: str = "png") -> None:
    """Check the records of both objects against the true masks."""
    assert [(item["frame"], item["object"]) for item in answer] == PLACES
    for item in answer:
        (mask,) = item["mask_per_prediction"]
        assert set(mask) == {"encoded_binary_mask", "iou_score", "size", "bbox", "area"} and mask["size"] == [96, 128]
        decoded = decode(mask["encoded_binary_mask"], encoding, (96, 128))
        assert iou(decoded, MASKS[item["frame"]]) > 0.8 and decoded.sum() == mask["area"]


def test_pyfunc_answers_one_item_per_frame_and_object(pyfunc: PyFuncModel, clip: Path) -> None:
    content = clip.read_bytes()
    frame = pd.DataFrame({"video": [content, base64.b64encode(content).decode()], "prompts": PROMPTS})
    answers: Any = pyfunc.predict(frame, params={"mask_encoding": "rle"})
    assert list(answers) == ["predictions", "image_id", "error"]
    for predictions, error in zip(answers["predictions"], answers["error"], strict=True):
        check_answer(predictions, "rle")
        assert error is None
    listed = pd.DataFrame({"video": [content], "prompts": [json.loads(PROMPTS)]}, index=[9])
    answers = pyfunc.predict(listed)
    assert list(answers.index) == [9]
    check_answer(answers["predictions"].loc[9])
    json.dumps(answers["predictions"].loc[9])


def score(
    tiny: Segmenter, cell: object, prompts: object = PROMPTS, limits: RequestLimits = NO_LIMITS, **params: Any
) -> Any:
    """Score a table of one video; spaces and case of a column's name do not count."""
    scorer = Scorer(engine_of(tiny, local_paths=True), limits)
    frame = pd.DataFrame({" Video": [cell], "prompts": [prompts]}, dtype=object)
    return scorer.score_frame(frame, Params(**params)).iloc[0]


def test_reads_paths_and_folders_where_paths_are_accepted(tiny: Segmenter, clip: Path, tmp_path: Path) -> None:
    check_answer(score(tiny, str(clip)).predictions)
    check_answer(score(tiny, str(write_video(tmp_path / "frames", FRAMES))).predictions)


def test_a_bad_row_names_the_frame_and_keeps_the_frames_before(tiny: Segmenter, tmp_path: Path) -> None:
    noisy = np.clip(disc_frames(8)[0] + np.random.default_rng(0).normal(0, 25, (8, 96, 128, 3)), 0, 255)
    video = cut(write_video(tmp_path / "clip.mp4", noisy.astype(np.uint8)), 0.7)
    answer = score(tiny, str(video), on_error="record")
    frames = {item["frame"] for item in answer.predictions}
    assert 2 < len(frames) < 8 and frames == set(range(len(frames)))
    assert f"row 0, column 'video', frame {len(frames)}: expected a file that holds all frames" in answer.error
    with pytest.raises(BadInput, match=f"row 0, column 'video', frame {len(frames)}"):
        score(tiny, str(video))


@pytest.mark.parametrize(
    ("cell", "prompts", "message"),
    [
        (None, PROMPTS, "column 'video': expected base64 text, an http"),
        ("no base64!", PROMPTS, "column 'video': expected base64 text of a"),
        (b"no video", PROMPTS, "column 'video': expected an mp4, mov, webm, mkv, avi, GIF or WebP file"),
        ("clip", None, "column 'prompts': expected a list of prompts such as"),
        ("clip", '[{"frame": 5, "object": 1, "box": [1, 2, 3, 4]}]', "column 'prompts', frame 5: expected a frame of"),
    ],
)
def test_a_bad_cell_is_an_error(cell: object, prompts: object, message: str, tiny: Segmenter, clip: Path) -> None:
    with pytest.raises(BadInput) as caught:
        score(tiny, clip.read_bytes() if cell == "clip" else cell, prompts)
    assert str(caught.value).startswith("row 0, ") and message in str(caught.value)


def test_limits_of_requests_count_frames_and_objects(tiny: Segmenter, clip: Path) -> None:
    with pytest.raises(BadInput, match="expected a video of at most 4 frames, got 5 frames"):
        score(tiny, clip.read_bytes(), limits=RequestLimits(frames=4))
    with pytest.raises(BadRequest, match="expected at most 1 objects in a video, got 2"):
        score(tiny, clip.read_bytes(), limits=RequestLimits(objects=1))


def test_mlflow_reports_the_row_and_the_frame(pyfunc: PyFuncModel, clip: Path) -> None:
    prompts = '[{"frame": 8, "object": 1, "box": [1, 2, 3, 4]}]'
    frame = pd.DataFrame({"video": [clip.read_bytes()], "prompts": [prompts]})
    with pytest.raises(MlflowException, match="row 0, column 'prompts', frame 8: expected a frame of the video"):
        pyfunc.predict(frame)


def test_images_may_have_another_video_column(tiny: Segmenter, disc: tuple[bytes, np.ndarray]) -> None:
    frame = pd.DataFrame({"image": [disc[0]], "video": ["holiday.mp4"], "input_boxes": ["[[68, 38, 153, 123]]"]})
    answer = Scorer(engine_of(tiny)).score_frame(frame, Params()).iloc[0]
    assert len(answer.predictions) == 1 and "frame" not in answer.predictions[0]
