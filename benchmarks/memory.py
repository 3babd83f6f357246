"""The resident memory of a process, in bytes, from Linux's `/proc`.

`getrusage` is not used: its peak of a child process includes the memory of the parent at the time of the fork.
"""

from __future__ import annotations

from pathlib import Path


def resident(process: int | str = "self") -> int:
    """Return the resident memory of a process."""
    return _status(process, "VmRSS")


def peak(process: int | str = "self") -> int:
    """Return the peak of the resident memory since the process started its program, or since `reset_peak`."""
    return _status(process, "VmHWM")


def reset_peak(process: int | str = "self") -> None:
    """Set the peak of a process to its resident memory now."""
    Path(f"/proc/{process}/clear_refs").write_text("5")


def _status(process: int | str, name: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024
