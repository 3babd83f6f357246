"""A Python executable that starts quickly, because it forks a process that has already imported the large libraries.

`python()` returns the path of the executable. The executable accepts `-m module ...`, `-c code ...` and `- ...`, as the
real Python does, and runs them in a fork of a process that has imported torch, transformers and mlflow. The same folder
contains a `sam-endpoint` that starts in the same way.

The imports take five seconds of CPU time, and the tests start about a hundred processes. The forked process has not
imported any module of this project, so each command runs the current code. Tests of the start itself (imports,
environment, memory, or the commands of the README) use the real Python.
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
MODULES = "torch transformers.modeling_utils transformers.models.sam.modeling_sam"
MODULES += " transformers.models.sam2.modeling_sam2 mlflow.pyfunc mlflow.store.tracking.sqlalchemy_store pandas"
MODULES += " pyarrow.parquet scipy.ndimage fastapi uvicorn"
CLIENT = """#!{python} -IS
import json, os, signal, socket, sys

connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.connect("{address}")
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: connection.send(str(number).encode()))
request = dict(arguments=[*{first}, *sys.argv[1:]], folder=os.getcwd(), environment=dict(os.environ))
socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
code = int(connection.recv(16) or 1)
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@cache
def python() -> str:
    """Start the process that is forked, and return the path of the Python executable.

    The folder of the executable contains only the two executables, so it can be the first entry of PATH.
    """
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    address, executables = folder / "socket", folder / "bin"
    executables.mkdir()
    for name, first in (("python", []), (COMMAND, [COMMAND])):
        (executables / name).write_text(CLIENT.format(python=sys.executable, address=address, first=first))
        (executables / name).chmod(0o755)
    # The process ends with this one, which holds the other end of the pipe to its standard input.
    parent = subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout and parent.stdout.readline() == b"ready\n"
    return str(executables / "python")


def serve(address: str) -> None:
    """Import the libraries, then fork a process for each connection to `address` until standard input ends."""
    gc.disable()
    for name in MODULES.split():
        importlib.import_module(name)
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                watch(connection)
                return
            connection.close()
    shutil.rmtree(Path(address).parent, ignore_errors=True)


def watch(connection: socket.socket) -> None:
    """Run the command of a connection in a fork, and send its exit status.

    Forwards the signals that arrive through the connection. Kills the command if the client disconnects.

    Args:
        connection: connection of a client, which sends the command and its three standard streams.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    child = os.fork()
    if child == 0:
        connection.close()
        run_command(files, **json.loads(request))
        return
    for file in (0, 1, 2, *files):
        os.close(file)
    exit_event = os.pidfd_open(child)
    while exit_event not in select.select([connection.fileno(), exit_event], [], [])[0]:
        os.kill(child, int(connection.recv(16) or signal.SIGKILL))
    with contextlib.suppress(BrokenPipeError):
        connection.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    os._exit(0)


def run_command(files: list[int], arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Replace this process by a command: set streams, folder and environment, then run the command's code.

    Args:
        files: file descriptors of standard input, output and error.
        arguments: arguments of Python, or `sam-endpoint` and its arguments.
        folder: working directory.
        environment: all environment variables.
    """
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    search_path = filter(None, environment.get("PYTHONPATH", "").split(":"))
    if arguments[0] == COMMAND:
        sys.argv, sys.path[:1] = arguments, search_path
        sys.exit(importlib.import_module("sam_endpoint.__main__").main())
    elif arguments[0] == "-m":
        sys.argv, sys.path[:1] = arguments[1:], [folder, *search_path]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        code = sys.stdin.read() if arguments[0] == "-" else arguments.pop(1)
        sys.argv, sys.path[:1] = arguments, ["", *search_path]
        main = sys.modules["__main__"] = type(sys)("__main__")
        exec(compile(code, "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    serve(sys.argv[1])
