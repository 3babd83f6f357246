"""What the endpoint's process writes to its log and to stderr: no data of a request, whichever library writes it."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from types import TracebackType
from typing import Any, TextIO

from sam_endpoint.model.mlflow.messages import WITHHELD, trace

logger = logging.getLogger("sam_endpoint.process")
OURS = "sam_endpoint"
# Loggers whose messages are constant texts before their arguments are filled in.
CONSTANT = ("uvicorn.error",)


def configure_logging() -> None:
    """Write this project's messages from INFO on, and those of other libraries from WARNING on."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger(OURS).setLevel(logging.INFO)


def withhold_request_data() -> None:
    """Withhold, from now on, whatever other libraries log, warn about, or raise.

    Their texts may repeat what a request holds: of a record, its level, logger and place remain; of an exception, its
    type and traceback. Records are changed where they are made, so this holds for every handler.
    """
    make_record = logging.getLogRecordFactory()

    def make_public_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        if record.name in CONSTANT:
            record.msg, record.args = str(record.msg), None
        elif record.name.partition(".")[0] != OURS:
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
    logger.error("an exception was not handled\n%s", trace(error) if error is not None else kind.__name__)
