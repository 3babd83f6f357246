"""`sam-endpoint score` and `embed`, as a user runs them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import requests
from PIL import Image

from sam_endpoint.model import masks
from tests import pictures
from tests.conftest import ROOT, serve_endpoint
from tests.scoring.batch.jobs import run
from tests.warm import python

BOX = "[[68, 38, 153, 123]]"


def run_score_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `score` as a process of its own."""
    words = [python(), "-m", "sam_endpoint", "score", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)


def test_scores_the_samples(packaged: Path, tmp_path: Path) -> None:
    output, overlay = tmp_path / "deep" / "predictions.parquet", tmp_path / "overlay.png"
    done = run_score_process(
        "--model", packaged, "--input", "samples/prompts.csv", "--output", output, "--overlay", overlay
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rows         6 (0 failed)" in done.stdout and "images       2" in done.stdout
    assert "6/6" in done.stderr or "scoring" not in done.stderr  # the progress bar appears only on a terminal
    table = pq.read_table(output).to_pylist()
    assert [row["what"] for row in table] == [
        "left eye",
        "right eye",
        "nose",
        "six coins",
        "one coin",
        "another, refined",
    ]
    assert [len(row["predictions"]) for row in table] == [1, 1, 1, 6, 1, 1]
    assert table[0]["image"] == "samples/cat.jpg" and table[0]["error"] is None
    eye = table[0]["predictions"][0]["mask_per_prediction"][0]
    mask = masks.decode(eye["encoded_binary_mask"], "rle", tuple(eye["size"]))
    assert mask.shape == (300, 451) and mask[95:140, 150:195].mean() > 0.9 and mask[:, 300:].mean() < 0.01
    assert Image.open(overlay).size[0] > 600


def test_reads_images_as_paths_bytes_or_base64_and_keeps_other_columns(
    packaged: Path, disc: tuple[bytes, np.ndarray], tmp_path: Path
) -> None:
    file = tmp_path / "disc.png"
    file.write_bytes(disc[0])
    for name, image in {"path": str(file), "bytes": disc[0], "base64": base64.encodebytes(disc[0]).decode()}.items():
        table = pd.DataFrame(
            {"image": [image, image], "input_boxes": [json.loads(BOX)] * 2, "weight": [0.5, 2.0], "shop": ["a", None]}
        )
        table.to_parquet(tmp_path / "in.parquet")
        output = tmp_path / f"{name}.parquet"
        done = run("--model", packaged, "--input", tmp_path / "in.parquet", "--output", output)
        assert done.returncode == 0, done.stderr[-3000:]
        out = pq.read_table(output).to_pylist()
        assert [(row["weight"], row["shop"]) for row in out] == [(0.5, "a"), (2.0, None)]
        assert [row["image"] for row in out] == [str(file) if name == "path" else None] * 2
        best = max(out[0]["predictions"][0]["mask_per_prediction"], key=lambda mask: mask["iou_score"])
        assert pictures.iou(masks.decode(best["encoded_binary_mask"], "rle", tuple(best["size"])), disc[1]) > 0.85


def test_records_bad_rows_and_scores_the_others(packaged: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "samples" / "coins.png", tmp_path / "coins.png")
    good = f"{tmp_path}/coins.png"
    table = pd.DataFrame({"image": [good, "none.png", good], "input_boxes": ["[20, 32, 68, 77]", BOX, "[5, 5, 2, 2]"]})
    table.to_csv(tmp_path / "in.csv", index=False)
    done = run("--model", packaged, "--input", tmp_path / "in.csv", "--output", tmp_path / "out.parquet")
    assert done.returncode == 0 and "rows         3 (2 failed)" in done.stdout
    errors = pq.read_table(tmp_path / "out.parquet")["error"].to_pylist()
    assert errors[0] is None and "row 1, column 'image'" in errors[1] and "row 2, column 'input_boxes'" in errors[2]
    assert "failed       column 'image': expected" in done.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        ("", "cannot be read"),
        ("image,input_boxes\n", "has no rows"),
        ("picture,input_boxes\na.png,\n", "expected a column 'image', got picture, input_boxes"),
        ("image,predictions\na.png,\n", "has a column 'predictions', which is the name of an output column"),
    ],
)
def test_rejects_tables_that_cannot_be_scored(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "in.csv").write_text(content)
    done = run("--input", tmp_path / "in.csv", "--output", tmp_path / "out.parquet")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out.parquet").exists()


def test_rejects_a_missing_model(tmp_path: Path) -> None:
    done = run("--model", tmp_path / "none", "--input", "samples/prompts.csv", "--output", tmp_path / "out.parquet")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: ")


def test_segments_everything_and_draws_an_overlay(
    packaged: Path, disc: tuple[bytes, np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "disc.png").write_bytes(disc[0])
    pd.DataFrame({"image": [str(tmp_path / "disc.png")]}).to_csv(tmp_path / "in.csv", index=False)
    params = json.dumps({"points_per_side": 6, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.5})
    output, overlay = tmp_path / "out.parquet", tmp_path / "overlay.png"
    arguments = ["--input", tmp_path / "in.csv", "--output", output, "--params", params, "--overlay", overlay]
    done = run("--model", packaged, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    (row,) = pq.read_table(output).to_pylist()
    objects = [prediction["mask_per_prediction"][0] for prediction in row["predictions"]]
    assert len(objects) >= 2 and overlay.exists()
    decoded = [masks.decode(item["encoded_binary_mask"], "rle", (160, 240)) for item in objects]
    assert max(pictures.iou(mask, disc[1]) for mask in decoded) > 0.8


def test_the_endpoint_uses_the_embeddings_that_embed_stores(packaged: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    shutil.copy(ROOT / "samples" / "coins.png", tmp_path / "photos" / "deep" / "coins.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    arguments = ["--model", packaged, "--images", tmp_path / "photos", "--store", store, "--api-key", "k"]
    done = run("embed", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "images       2 (1 failed)" in done.stdout and "broken.png: column 'image'" in done.stdout
    options = ["--model", packaged, "--embedding-store", store, "--api-keys", "k,l"]
    with serve_endpoint(tmp_path / "log", *options) as url:
        rows = {"input_data": [{"image_id": "deep/coins.png", "input_boxes": "[20, 32, 68, 77]"}]}
        answer = requests.post(f"{url}/score", json=rows, headers={"x-api-key": "k"}, timeout=60)
        assert answer.status_code == 200 and len(answer.json()[0]["predictions"]) == 1
        metrics = requests.get(f"{url}/metrics", headers={"x-api-key": "k"}, timeout=10)
        assert metrics.status_code == 200 and 'stage="prompt"' in metrics.text and 'stage="encode"' not in metrics.text
        answer = requests.post(f"{url}/score", json=rows, headers={"x-api-key": "l"}, timeout=60)
        assert answer.status_code == 404
