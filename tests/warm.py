"""A Python that starts quickly. `python()` is the path of an executable that takes `-m module ...`, `-c code ...` and
`- ...` as the usual one does, and runs them in a fork of a process that has loaded torch, transformers and mlflow.
Beside the executable there is a `sam-endpoint` of the same kind.

A usual start spends five seconds of a CPU on these imports, and the tests start about a hundred processes. Nothing of
this project is loaded beforehand, so each command runs the present code. Tests of a start itself (its imports,
environment or memory, or the README's commands) use the real Python.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

COMMAND = "sam-endpoint"
LOADED = "torch transformers.modeling_utils transformers.models.sam.modeling_sam transformers.models.sam2.modeling_sam2"
LOADED += " mlflow.pyfunc mlflow.store.tracking.sqlalchemy_store pandas pyarrow.parquet scipy.ndimage fastapi uvicorn"
SHIM = """#!{python} -IS
import json, os, signal, socket, sys

asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
asking.connect("{address}")
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: asking.send(str(number).encode()))
what = dict(arguments=[*{first}, *sys.argv[1:]], folder=os.getcwd(), environment=dict(os.environ))
socket.send_fds(asking, [json.dumps(what).encode()], [0, 1, 2])
code = int(asking.recv(16) or 1)
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@cache
def python() -> str:
    """Return the path of the executable. Its folder holds only the two executables, and may stand first in PATH."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    address, shims = folder / "socket", folder / "bin"
    shims.mkdir()
    for name, first in (("python", []), (COMMAND, [COMMAND])):
        (shims / name).write_text(SHIM.format(python=sys.executable, address=address, first=first))
        (shims / name).chmod(0o755)
    # It ends with this process, which holds the other end of its standard input.
    parent = subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout and parent.stdout.readline() == b"ready\n"
    return str(shims / "python")


def serve(address: str) -> None:
    """Forks a process for each that asks, until standard input ends."""
    gc.disable()
    for name in LOADED.split():
        importlib.import_module(name)
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            asking, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                watch(asking)
                return
            asking.close()
    shutil.rmtree(Path(address).parent, ignore_errors=True)


def watch(asking: socket.socket) -> None:
    """Forks the command, passes signals on to it, kills it when who asked for it is gone, tells how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    text, files, _, _ = socket.recv_fds(asking, 1 << 20, 3)
    child = os.fork()
    if child == 0:
        asking.close()
        begin(files, **json.loads(text))
        return
    for file in (0, 1, 2, *files):
        os.close(file)
    ended = os.pidfd_open(child)
    while ended not in select.select([asking.fileno(), ended], [], [])[0]:
        os.kill(child, int(asking.recv(16) or signal.SIGKILL))
    with contextlib.suppress(BrokenPipeError):
        asking.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    os._exit(0)


def begin(files: list[int], arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Becomes the command."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    search = filter(None, environment.get("PYTHONPATH", "").split(":"))
    if arguments[0] == COMMAND:
        sys.argv, sys.path[:1] = arguments, search
        sys.exit(importlib.import_module("sam_endpoint.__main__").main())
    elif arguments[0] == "-m":
        sys.argv, sys.path[:1] = arguments[1:], [folder, *search]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        code = sys.stdin.read() if arguments[0] == "-" else arguments.pop(1)
        sys.argv, sys.path[:1] = arguments, ["", *search]
        main = sys.modules["__main__"] = type(sys)("__main__")
        exec(compile(code, "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    serve(sys.argv[1])
