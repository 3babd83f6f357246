"""The entry script of Azure's batch endpoint, run as the platform does: parallel processes, each with mini-batches."""

from __future__ import annotations

import io
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sam_endpoint.model import masks
from tests import pictures
from tests.conftest import ROOT
from tests.warm import python

WORKER = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("entry", sys.argv[1])  # Azure's runner also loads the script by its path
entry = importlib.util.module_from_spec(spec)
spec.loader.exec_module(entry)
entry.init()
with open(sys.argv[2], "a") as output:
    for line in sys.stdin:
        result = entry.run(json.loads(line))
        result.to_csv(output, header=False, index=False)  # the output action append_row
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Write tables and images, some of which are bad, and return the files."""
    folder = tmp_path_factory.mktemp("inputs")
    for i in range(3):
        (folder / f"disc{i}.png").write_bytes(pictures.disc(180 + i, 130)[0])
    box = "[[68, 38, 153, 123]]"
    names = [str(folder / f"disc{i % 3}.png") for i in range(7)]
    pd.DataFrame({"image": names, "input_boxes": box, "multimask_output": "false"}).to_csv(
        folder / "a.csv", index=False
    )
    data = [(folder / "disc0.png").read_bytes(), b"broken"]
    pd.DataFrame({"image": data, "input_boxes": [box, box]}).to_parquet(folder / "b.parquet")
    (folder / "c.csv").write_text("picture\nx\n")
    return [str(folder / name) for name in ("a.csv", "b.parquet", "c.csv", "disc1.png", "disc2.png")]


def test_parallel_processes_append_a_row_per_row_or_image(packaged: Path, files: list[str], tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "AZUREML_MODEL_DIR": str(packaged.parent),
        "SCORING_PARAMS": json.dumps({"points_per_side": 5, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.6}),
    }
    script = str(ROOT / "scoring" / "batch" / "score.py")

    def run_process(i: int) -> str:
        mini_batches = [[file] for file in files[i::2]]
        done = subprocess.run(
            [python(), "-c", WORKER, script, str(tmp_path / f"{i}.csv")],
            input="\n".join(map(json.dumps, mini_batches)),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        return done.stderr[-3000:] if done.returncode else ""

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run_process, range(2))) == ["", ""]
    names = ["file", "row", "image", "image_id", "error", "predictions"]
    rows = pd.concat([pd.read_csv(tmp_path / f"{i}.csv", names=names) for i in range(2)])
    assert rows["file"].value_counts().to_dict() == {
        "a.csv": 7,
        "b.parquet": 2,
        "c.csv": 1,
        "disc1.png": 1,
        "disc2.png": 1,
    }
    table = rows[rows["file"] == "a.csv"]
    assert list(table["row"]) == list(range(7)) and table["error"].isna().all()
    encoded = json.loads(table["predictions"].iloc[1])[0]["mask_per_prediction"][0]
    mask = masks.decode(encoded["encoded_binary_mask"], "rle", tuple(encoded["size"]))
    assert pictures.iou(mask, pictures.disc(181, 130)[1]) > 0.85
    errors = rows.dropna(subset="error").set_index("file")["error"].to_dict()
    assert set(errors) == {"b.parquet", "c.csv"}
    assert "row 1, column 'image'" in errors["b.parquet"] and "expected a column 'image'" in errors["c.csv"]
    assert all(len(json.loads(text)) >= 1 for text in rows[rows["file"].str.endswith("png")]["predictions"])


ENTRY = """
import json, sys
sys.path.insert(0, "")
from sam_endpoint.scoring.batch import score
score.init()
print(score.run(json.loads(sys.argv[1])).to_json(orient="records"))
"""


def test_records_broken_files_and_lines_and_skips_hidden_files(packaged: Path, tmp_path: Path) -> None:
    photo = Image.open(io.BytesIO(pictures.disc()[0]))
    exif = photo.getexif()
    exif[274] = 6
    photo.save(tmp_path / "photo.jpg", exif=exif)
    row = f'{tmp_path}/photo.jpg,"[[68, 38, 153, 123]]"'
    (tmp_path / "a.csv").write_text(f'Image,Input Boxes,image_id,shop\n{row},a,x\n{row},a\n,"[[9, 9, 20, 20]]",a,y\n')
    (tmp_path / "b.csv").write_text(f"image,bboxes\n{row}\n")
    (tmp_path / "c.parquet").write_bytes(b"PAR1")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    hidden = [tmp_path / "._a.csv", tmp_path / ".ipynb_checkpoints" / "a-checkpoint.csv"]
    for file in hidden:
        file.write_text("image\nx.png\n")
    pq.write_table(pa.table({"image": [{"bytes": pictures.disc()[0], "path": "own.png"}]}), tmp_path / "d.parquet")
    files = [str(tmp_path / name) for name in ("a.csv", "b.csv", "c.parquet", "d.parquet", "photo.jpg")]
    params = json.dumps({"points_per_side": 4, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.6})
    done = subprocess.run(
        [python(), "-c", ENTRY, json.dumps([*files, *map(str, hidden)])],
        cwd=ROOT,
        env={**os.environ, "AZUREML_MODEL_DIR": str(packaged.parent), "SCORING_PARAMS": params},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [row["file"] for row in rows] == ["a.csv"] * 3 + ["b.csv", "c.parquet", "d.parquet", "photo.jpg"]
    assert rows[1]["error"] == "row 1 (line 3 of 'a.csv'), expected 4 fields, as many as the header has, got 3"
    assert "column 'bboxes': expected the name 'input_boxes'" in rows[3]["error"] and "c.parquet" in rows[4]["error"]
    assert rows[5]["image"] == "own.png"
    predictions = [json.loads(row["predictions"])[:1] for row in rows]
    sizes = [[mask["size"] for item in first for mask in item["mask_per_prediction"]] for first in predictions]
    assert sizes[0] == sizes[2] == [[160, 240]] * 3  # images of a table are as stored; row 2 has the id of row 0
    assert sizes[6] == [[240, 160]]  # an image file is upright
    assert done.stderr.count("column 'shop' is not read; it stays in the output") == 1


def test_a_model_without_a_script_scores_tables_that_pandas_reads(
    packaged: Path, disc: tuple[bytes, np.ndarray]
) -> None:
    """Azure passes the result of `pandas.read_csv`: images are base64 text, and empty cells are NaN."""
    model: Any = mlflow.pyfunc.load_model(str(packaged))
    text = "image,input_points,input_boxes,input_labels,multimask_output\n"
    for prompts in (
        ',"[[68, 38, 153, 123]]",,False',
        '"[[[110, 80]]]",,"[[1]]",',
        '"[[[110, 80]]]","[[68, 38, 153, 123]]",,True',
    ):
        text += f"{pictures.to_text(disc[0])},{prompts}\n"
    answers = model.predict(pd.read_csv(io.StringIO(text)))
    assert [len(row[0]["mask_per_prediction"]) for row in answers["predictions"]] == [1, 3, 3]
    assert answers["error"].isna().all()
