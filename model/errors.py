"""The exceptions of this project, and short descriptions of bad values for their messages.

EndpointError                      carries an MLflow error code and an HTTP status
├── BadInput                  400  one value of one row
│   └── UnknownImage          404  an image_id that no cached image has
├── BadParameter              400  a parameter of a request
├── BadRequest                400  the body of a request
├── UnknownModel              404  a model name that the catalog does not list
├── BadModel                  400  a model or checkpoint that cannot be opened
├── BadData                   400  a table, data set or folder that cannot be read
├── OutputConflict            400  an output location that belongs to another job
├── TooManyFailures           400  a batch job with more failed rows than it allows
├── Overloaded                503  no place in a queue, or no memory, at the moment
├── DeadlineExceeded          504  a request that takes longer than it may
└── ClientDisconnected        499  the client no longer waits for the response
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

MAX_NAME = 64  # characters of a client's name that is compared with ours
OUT_OF_MEMORY = "not enough memory is available at the moment"
INTERNAL_ERROR = "the request failed because of an internal error; the server's log has the details"


class EndpointError(Exception):
    """Base class of every error that this project raises on purpose.

    Its message is safe to log and to return: it never holds request data, only kinds, shapes and sizes of values.

    Attributes:
        code: MLflow's name of the error class.
        status: HTTP status of a response that reports the error.
    """

    code: str = "INVALID_PARAMETER_VALUE"
    status: int = 400


class BadInput(EndpointError, ValueError):
    """One value of one row cannot be scored.

    Attributes:
        column: name of the column or field that holds the value.
        expected: what is accepted there.
        got: what came, without its content.
        row: index label of the row, or None outside a table.
    """

    def __init__(self, column: str, expected: str, got: str, row: object | None = None) -> None:
        self.column = column
        self.expected = expected
        self.got = got
        self.row = row
        super().__init__(column, expected, got)

    def at(self, row: object) -> BadInput:
        """Return the same error with the index label of its row."""
        return type(self)(self.column, self.expected, self.got, row)

    def renamed(self, names: Mapping[str, str]) -> BadInput:
        """Return the same error with the client's name for the column."""
        return type(self)(names.get(self.column, self.column), self.expected, self.got, self.row)

    def __str__(self) -> str:
        place = f"column '{self.column}'" if self.row is None else f"row {self.row}, column '{self.column}'"
        return f"{place}: expected {self.expected}, got {self.got}"


class UnknownImage(BadInput):
    """No cached image has this `image_id`."""

    code = "RESOURCE_DOES_NOT_EXIST"
    status = 404


class BadParameter(EndpointError, ValueError):
    """A parameter has an unknown name, a wrong type, or a value out of range."""


class BadRequest(EndpointError, ValueError):
    """The body of a request does not have the form that its route expects."""


class UnknownModel(EndpointError, ValueError):
    """The catalog lists no model of this name."""

    code = "RESOURCE_DOES_NOT_EXIST"
    status = 404


class BadModel(EndpointError, ValueError):
    """A model or checkpoint cannot be opened."""


class BadData(EndpointError, ValueError):
    """A table, a data set or a folder of files cannot be read."""


class OutputConflict(EndpointError, ValueError):
    """The output location holds the output of another job, or other files."""


class TooManyFailures(EndpointError, RuntimeError):
    """More rows failed than a batch job allows."""

    def __init__(self, failed: int, limit: int) -> None:
        super().__init__(f"{failed} rows failed; the limit is {limit} (--error-threshold)")


class Overloaded(EndpointError, RuntimeError):
    """A queue is full or memory is short; the same request may succeed later."""

    code = "TEMPORARILY_UNAVAILABLE"
    status = 503


class DeadlineExceeded(EndpointError, RuntimeError):
    """The work takes longer than a request may take."""

    code = "DEADLINE_EXCEEDED"
    status = 504

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the request takes longer than {seconds:g} seconds; send fewer rows, prompts or points")


class ClientDisconnected(EndpointError, RuntimeError):
    """The client closed its connection, so the request is abandoned."""

    code = "CANCELLED"
    status = 499  # nginx's status for a client that closes the connection early

    def __init__(self) -> None:
        super().__init__("the client disconnected")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception reports a failed allocation.

    torch has no exception class for host memory, so its RuntimeErrors are recognised by their text.
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _OUT_OF_MEMORY_PHRASES)
    )


_OUT_OF_MEMORY_PHRASES = ("out of memory", "can't allocate memory", "not enough memory")


def kind(value: object) -> str:
    """Describe a value by its type and size for an error message, never by its content."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"text of {len(value)} characters"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    if isinstance(value, int) and abs(value) > 10**15:
        return "a number too large"
    if isinstance(value, (int, float)):
        return f"the number {value:g}"
    if isinstance(value, dict):
        return f"an object with {len(value)} keys"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    shape: Any = getattr(value, "shape", None)
    return f"an array of shape {tuple(shape)}" if shape is not None else f"a {type(value).__name__}"


def describe_name(name: object, known: Iterable[str]) -> str:
    """Return a client's name for something as it is if it resembles a known name, else its kind and size.

    A name that resembles a known one is a slip that the client wants to see; any other may be data.
    """
    if isinstance(name, str) and len(name) <= MAX_NAME:
        matches = get_close_matches(name.strip().lower().replace("-", "_"), list(known), 1, 0.8)
        if matches:
            return f"'{matches[0]}'" if name == matches[0] else f"'{name}' (did you mean '{matches[0]}'?)"
    return kind(name)
