"""Configure the process of a command that loads a model: imports, garbage collector, memory allocator, threads."""

from __future__ import annotations

import gc
import sys
import tempfile
import threading


def configure_process(operator_threads: int | None = None) -> None:
    """Import torch and transformers, and configure garbage collector, memory allocator and threads.

    Call this function before anything else imports torch. Later calls only change the number of threads.

    Args:
        operator_threads: number of threads that torch uses for one operator, in every thread that does not set its own
            number; None keeps torch's default. The endpoint passes 1; see `sam_endpoint.model.threads`.
    """
    _ensure_temporary_folder()
    # The imports run in a new thread, because its stack is short. At some stack depths, CPython 3.11 allocates and
    # frees a stack chunk for every call, which makes the imports 5 % slower.
    importing = threading.Thread(target=_import_without_collecting)
    importing.start()
    importing.join()
    from sam_endpoint.model import memory, threads

    memory.keep_freed_memory()
    if operator_threads is not None:
        threads.configure(operator_threads)


def _ensure_temporary_folder() -> None:
    """Use shared memory for temporary files if no other folder can be written, as in containers with a read-only root.

    torch looks for a temporary folder when it is imported.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = "/dev/shm"


def _import_without_collecting() -> None:
    """Import torch and transformers with the garbage collector off, then exclude their objects from collections.

    The imports create half a million objects that live as long as the process. Searching them would take the collector
    a fifth of a command's start time.
    """
    if "transformers.modeling_utils" in sys.modules:
        return
    was_enabled = gc.isenabled()
    gc.collect()  # because freeze() keeps uncollected garbage for ever
    gc.disable()
    try:
        import torch  # noqa: F401
        import transformers.modeling_utils  # noqa: F401

        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()
