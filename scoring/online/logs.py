"""Configure the log of the endpoint's process, and keep request data out of the log and of stderr."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from types import TracebackType
from typing import Any, TextIO

from sam_endpoint.model.mlflow.messages import WITHHELD, trace

logger = logging.getLogger("sam_endpoint.process")
PROJECT_LOGGER = "sam_endpoint"
# Loggers of other libraries whose message templates are constant texts. The arguments may hold request data.
CONSTANT_TEMPLATES = ("uvicorn.error",)


def configure_logging() -> None:
    """Log this project's messages at level INFO and above, and other libraries' at level WARNING and above."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger(PROJECT_LOGGER).setLevel(logging.INFO)


def withhold_request_data() -> None:
    """Remove the texts of other libraries from all further log records, warnings and unhandled exceptions.

    These texts may quote request data. A log record keeps its level, logger, file and line. An exception keeps its type
    and traceback. The function replaces the process's log record factory, so that every handler is covered.
    """
    make_record = logging.getLogRecordFactory()

    def make_public_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        if record.name in CONSTANT_TEMPLATES:
            record.msg, record.args = str(record.msg), None
        elif record.name.partition(".")[0] != PROJECT_LOGGER:
            record.msg = f"{record.name}: {WITHHELD} ({record.filename}, line {record.lineno})"
            record.args = None
        if record.exc_info and record.exc_info[1] is not None:
            record.msg, record.args = f"{record.getMessage().rstrip()}\n{trace(record.exc_info[1])}", None
        record.exc_info = record.exc_text = record.stack_info = None
        return record

    logging.setLogRecordFactory(make_public_record)
    warnings.showwarning = _log_warning
    sys.excepthook = _log_exception
    threading.excepthook = lambda caught: _log_exception(caught.exc_type, caught.exc_value, caught.exc_traceback)
    sys.unraisablehook = lambda caught: _log_exception(caught.exc_type, caught.exc_value, caught.exc_traceback)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    logger.warning("%s: %s (%s, line %s)", category.__name__, WITHHELD, filename, lineno)


def _log_exception(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    logger.error("unhandled exception\n%s", trace(error) if error is not None else kind.__name__)
