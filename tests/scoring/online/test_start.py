"""The start of `sam-endpoint serve`: the URL that it prints, and options with which it does not start."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from sam_endpoint.__main__ import main
from sam_endpoint.scoring.online.middleware.auth import Keys
from sam_endpoint.scoring.online.settings import EndpointSettings
from tests.conftest import ROOT, run_code, run_here
from tests.warm import python


def first_line(folder: Path, *options: str) -> str:
    """Start `serve`, check that the URL in its first line answers, and return the line."""
    command = [python(), "-m", "sam_endpoint", "serve", *options]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout
        line = process.stdout.readline()
        match = re.search(r"http://\S+", line)
        assert match, (folder / "log").read_text()
        # No retry is necessary, because `serve` prints the URL after it has started to listen.
        assert urllib.request.urlopen(f"{match[0]}/ping", timeout=10).status == 200
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        process.kill()
    return line


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", r"http://127\.0\.0\.1:\d+"),
        ("localhost", r"http://127\.0\.0\.1:\d+"),
        ("0.0.0.0", r"http://127\.0\.0\.1:(\d+)  \(and at port \1 of this machine's other addresses\)"),
    ],
)
def test_prints_a_url_that_answers(packaged: Path, tmp_path: Path, host: str, shown: str) -> None:
    line = first_line(tmp_path, "--model", str(packaged), "--port", "0", "--host", host)
    assert re.fullmatch(rf"serving on  {shown}\n", line), line


def test_reports_a_port_in_use_before_it_loads_anything() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code = "import sys; from sam_endpoint.__main__ import main; code = main(sys.argv[1:]); "
        code += "assert 'torch' not in sys.modules; sys.exit(code)"
        start = time.monotonic()
        done = run_code(code, "serve", "--port", port, "--model", "nowhere")
        assert done.returncode == 2 and time.monotonic() - start < 10
    expected = f"error: port {port} of 127.0.0.1 is in use by another process; choose another --port, or 0 for any\n"
    assert done.stderr == expected


@pytest.mark.skipif(
    int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80 or os.getuid() != 0,
    reason="every user may open port 80 here, or this user cannot become another",
)
def test_reports_a_port_that_this_user_may_not_open() -> None:
    code = "import encodings.idna, os; from sam_endpoint.commands.serve import bind; os.setuid(65534); "
    code += "bind('127.0.0.1', 80)"
    done = run_code(code)
    assert "CommandError: this user may not open port 80; choose a --port above 1023" in done.stderr


def write_content(folder: Path, name: str, data: bytes) -> Path:
    """Write a file, and return it."""
    (folder / name).write_bytes(data)
    return folder / name


CATALOGS = [
    (b"", "content: Input should be a valid dictionary"),
    (b"[1, 2]", "content: Input should be a valid dictionary"),
    (b"a: [b\nc: }", "it is not YAML: line 2, column 2"),
    (b"\x93NUMPY\x00\xff\xfe", "it is not UTF-8 text"),
    (b"a: \x00", "it is not YAML"),
    (b"default: a\nmodels: 5\n", "models: Input should be a valid dictionary"),
    (b"default: a\nmodels: {a: {}}\n", "models.a: expected one of `checkpoint` and `model`"),
]


@pytest.mark.parametrize(("data", "message"), CATALOGS, ids=range(len(CATALOGS)))
def test_reports_a_broken_catalog_in_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    done = run_here(main, "serve", "--port", 0, "--catalog", write_content(tmp_path, "catalog.yaml", data))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: catalog {tmp_path}/catalog.yaml: ") and message in done.stderr


def test_reports_values_of_options_that_cannot_be_used(tmp_path: Path) -> None:
    for option, value, message in (
        ("--catalog", tmp_path, "Is a directory"),
        ("--catalog", tmp_path / "none", "No such file or directory"),
        ("--model", tmp_path / "none", "holds no MLflow model"),
        ("--model", "models:/none@champion", "no model can be loaded from 'models:/none@champion'"),
        ("--model", "runs:/none/model", "no model can be loaded from 'runs:/none/model'"),
        ("--api-keys-file", tmp_path / "none", "No such file or directory"),
        ("--api-keys-file", tmp_path, "Is a directory"),
        (
            "--api-keys-file",
            write_content(tmp_path, "utf16", "a key".encode("utf-16")),
            "expected UTF-8 text, one key per line, got another encoding",
        ),
        ("--api-keys-file", write_content(tmp_path, "empty", b"\n \n"), "expected at least one key, got none"),
        ("--api-keys", " , ", "expected at least one key, got none"),
        ("--embedding-store", "foo://bar", "--embedding-store 'foo://bar' cannot be used"),
        ("--device", "banana", "device 'banana' is not available on this machine"),
        ("--precision", "banana", "precision 'banana': expected one of float32"),
        ("--host", "name.invalid", "port 0 of --host 'name.invalid' cannot be opened"),
        (
            "--cors-origins",
            "https://a.example, https://b.example/path",
            "--cors-origins: number 2: expected * or an origin",
        ),
        ("--grace", "inf", "--grace: Input should be a finite number"),
        ("--in-flight", "0", "--in-flight: Input should be greater than 0"),
    ):
        done = run_here(main, "serve", "--port", "0", option, value)
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
        assert done.returncode == 2 and message in line and "Traceback" not in done.stderr, done.stderr


def test_reports_all_bad_environment_variables_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM_PORT", "abc")
    monkeypatch.setenv("SAM_IN_FLIGHT", "0")
    done = run_here(main, "serve")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "--port: Input should be a valid integer" in done.stderr and "--in-flight: Input should be" in done.stderr


def test_a_key_is_accepted_in_its_own_characters_only() -> None:
    keys = Keys(["пароль", "schlüssel", "密码甲"])
    for accepted in ("пароль".encode(), "schlüssel".encode(), "schlüssel".encode("latin-1"), "密码甲".encode()):
        assert keys.tenant(accepted)
    for wrong in (b"??????", b"???", b"", b"schl?ssel"):
        assert keys.tenant(wrong) is None


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes("secret\nother\n".encode("utf-8-sig"))
    assert EndpointSettings(api_keys_file=tmp_path / "keys").keys() == ["secret", "other"]
