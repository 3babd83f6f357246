"""Errors of `sam-endpoint package`: each is one line, and nothing is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sam_endpoint.__main__ import main
from tests.conftest import free_port, run_here


def refusal(*words: object) -> str:
    """Run `package` with arguments that it rejects, and return its line of error."""
    done = run_here(main, "package", *words)
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return line


def test_rejects_outputs_that_cannot_be_written_and_checkpoints_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    for name in ("file", "folder"):
        assert "is not an MLflow model; choose another --output" in refusal("--output", tmp_path / name, "--no-log")
    assert (tmp_path / "folder" / "notes.txt").read_text() == "mine"
    assert "File exists" in refusal("--output", tmp_path / "file" / "below", "--no-log")
    assert "No such file" in refusal("--output", "/proc/none/below", "--no-log")
    (tmp_path / "broken.pt").write_bytes(b"no tensors")
    for checkpoint in (tmp_path / "none", tmp_path / "folder", tmp_path / "none.pt", tmp_path / "broken.pt"):
        line = refusal("--checkpoint", checkpoint, "--output", tmp_path / "model", "--no-log")
        assert line.startswith(f"error: checkpoint '{checkpoint}'")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.pt", "file", "folder"]


@pytest.mark.parametrize(
    ("config", "message"),
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
def test_rejects_settings_with_the_expected_value(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    line = refusal("--config", json.dumps(config), "--output", tmp_path / "model", "--no-log")
    assert message in line and not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "uri", [f"http://me:pa55word@127.0.0.1:{free_port()}", "foo://bar"], ids=["down", "unknown scheme"]
)
def test_an_unusable_tracking_server_is_an_error_that_hides_its_password(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    try:
        line = refusal("--output", tmp_path / "model")
    finally:
        mlflow.set_tracking_uri(before)
    assert "cannot be used" in line and line.endswith("add --no-log to save without logging")
    assert "pa55word" not in line and not (tmp_path / "model").exists()


def test_rejects_empty_names_and_an_alias_without_a_name(tmp_path: Path) -> None:
    for words in (["--register", ""], ["--register", "sam", "--alias", ""], ["--alias", "champion"]):
        done = run_here(main, "package", *words, "--output", tmp_path / "model")
        assert done.returncode == 2 and done.stderr.startswith("usage: sam-endpoint package")
