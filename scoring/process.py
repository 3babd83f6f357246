"""Settings of the whole process, for commands that load a model. Their main functions call `configure_process`."""

from __future__ import annotations

import gc
import sys
import tempfile
import threading


def configure_process(operator_threads: int | None = None) -> None:
    """Import torch and transformers, and set up garbage collector, memory allocator and threads for a model.

    Call this function before anything else imports torch. Later calls change the number of threads only.

    Args:
        operator_threads: the number of threads that divide each of torch's operators, in all threads that do not set
            their own number; None leaves torch's number. The endpoint passes 1; see `sam_endpoint.model.threads`.
    """
    _ensure_temporary_folder()
    # In a thread, whose stack is short: at some depths CPython 3.11 allocates and frees a chunk of its stack for every
    # call, which makes the imports 5 % slower.
    importing = threading.Thread(target=_import_without_collecting)
    importing.start()
    importing.join()
    from sam_endpoint.model import memory, threads

    memory.keep_freed()
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
    """Import torch and transformers with the garbage collector paused, and exempt their objects from later collections.

    The collector would take a fifth of a command's start to search half a million new objects, all of which stay.
    """
    if "transformers.modeling_utils" in sys.modules:
        return
    was_enabled = gc.isenabled()
    gc.collect()  # freeze() would keep present garbage for good
    gc.disable()
    try:
        import torch  # noqa: F401
        import transformers.modeling_utils  # noqa: F401

        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()
