"""What `sam-endpoint package` says when it cannot do its work: one line, before anything is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sam_endpoint.__main__ import main
from tests.conftest import free_port, run_here


def refused(*words: object) -> str:
    """Run the command and return its one line of error."""
    done = run_here(main, "package", *words)
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return line


def test_outputs_and_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    for name in ("file", "folder"):
        assert "is not an MLflow model; choose another --output" in refused("--output", tmp_path / name, "--no-log")
    assert (tmp_path / "folder" / "notes.txt").read_text() == "mine"
    assert "File exists" in refused("--output", tmp_path / "file" / "below", "--no-log")
    assert "No such file" in refused("--output", "/proc/none/below", "--no-log")
    (tmp_path / "broken.pt").write_bytes(b"no tensors")
    for checkpoint in (tmp_path / "none", tmp_path / "folder", tmp_path / "none.pt", tmp_path / "broken.pt"):
        line = refused("--checkpoint", checkpoint, "--output", tmp_path / "model", "--no-log")
        assert line.startswith(f"error: checkpoint '{checkpoint}'")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.pt", "file", "folder"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"hosts": 5}, "setting 'hosts': expected a value such as [\"*\"], got the number 5"),
        ({"hosts": [5]}, "setting 'hosts'"),
        ({"max_prompts": None}, "setting 'max_prompts': expected a value such as 10000, got nothing"),
        (
            {"cache_bytes": "1 GB"},
            "setting 'cache_bytes': expected a value such as 1073741824, got text of 4 characters",
        ),
        ({"cache_bytes": -1}, "setting 'cache_bytes'"),
        ({"urls": 1}, "setting 'urls': expected a value such as true, got the number 1"),
        ({"max_side": True}, "setting 'max_side'"),
        ({"device": 7}, "setting 'device'"),
        ({"precision": "banana"}, "setting 'precision'"),
        ({"nothing": 1}, "unknown setting 'nothing'"),
        ({"mask_encoding": "gif"}, "parameter 'mask_encoding'"),
    ],
)
def test_settings(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    line = refused("--config", json.dumps(config), "--output", tmp_path / "model", "--no-log")
    assert said in line and not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "uri", [f"http://me:pa55word@127.0.0.1:{free_port()}", "foo://bar"], ids=["down", "unknown scheme"]
)
def test_a_tracking_server_that_cannot_be_used(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    try:
        line = refused("--output", tmp_path / "model")
    finally:
        mlflow.set_tracking_uri(before)
    assert "cannot be used" in line and line.endswith("--no-log saves the model only")
    assert "pa55word" not in line and not (tmp_path / "model").exists()


def test_names_that_are_empty(tmp_path: Path) -> None:
    for words in (["--register", ""], ["--register", "sam", "--alias", ""], ["--alias", "champion"]):
        done = run_here(main, "package", *words, "--output", tmp_path / "model")
        assert done.returncode == 2 and done.stderr.startswith("usage: sam-endpoint package")
