"""The exceptions of this project, and descriptions of bad values for error messages.

EndpointError                      carries an MLflow error code and an HTTP status
├── BadInput                  400  one value of one row
│   ├── UnknownImage          404  an image_id that no cached image has
│   └── BadFrame              400  one frame of a video, or a prompt on it
├── BadParameter              400  a parameter of a request
├── BadRequest                400  the body of a request
├── UnknownModel              404  a model name that the catalog does not list
├── BadModel                  400  a model or checkpoint that cannot be opened
├── BadData                   400  a table, data set or folder that cannot be read
├── OutputConflict            400  an output location that belongs to another job
├── TooManyFailures           400  a batch job with more failed rows than it allows
├── Overloaded                503  a full queue, or too little memory at the moment
├── DeadlineExceeded          504  a request that exceeds its time limit
└── ClientDisconnected        499  a client that closed its connection
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

MAX_NAME = 64  # characters; longer names from clients are not compared with known names
OUT_OF_MEMORY = "not enough memory is available at the moment"
INTERNAL_ERROR = "the request failed because of an internal error; the server's log has the details"


class EndpointError(Exception):
    """Base class of every error that this project raises on purpose.

    The message is safe to log and to return. It never holds request data, only the kinds, shapes and sizes of values.

    Attributes:
        code: MLflow's error code, such as `INVALID_PARAMETER_VALUE`.
        status: HTTP status of a response that reports the error.
    """

    code: str = "INVALID_PARAMETER_VALUE"
    status: int = 400


class BadInput(EndpointError, ValueError):
    """One value of one row cannot be scored.

    Args:
        column: name of the column or field that holds the value.
        expected: description of accepted values.
        got: description of the value, without its content.
        row: index label of the row, or None outside a table.

    Attributes:
        image_id: the `image_id` of the row, or None if it has none or it is not known.

    Example:
        >>> print(BadInput("input_boxes", "4 numbers", "a list of 3").at(7))
        row 7, column 'input_boxes': expected 4 numbers, got a list of 3
    """

    image_id: str | None = None

    def __init__(self, column: str, expected: str, got: str, row: object | None = None) -> None:
        self.column = column
        self.expected = expected
        self.got = got
        self.row = row
        self.place = f"column '{column}'" if row is None else f"row {row}, column '{column}'"
        super().__init__(column, expected, got)

    def at(self, row: object) -> BadInput:
        """Return a copy of the error with the index label of its row."""
        return type(self)(self.column, self.expected, self.got, row)

    def renamed(self, names: Mapping[str, str]) -> BadInput:
        """Return a copy of the error with the column name that the client uses.

        Args:
            names: the client's column names, by this project's column names.
        """
        return type(self)(names.get(self.column, self.column), self.expected, self.got, self.row)

    def __str__(self) -> str:
        return f"{self.place}: expected {self.expected}, got {self.got}"


class UnknownImage(BadInput):
    """No cached image has this `image_id`."""

    code = "RESOURCE_DOES_NOT_EXIST"
    status = 404


class BadFrame(BadInput):
    """One frame of a video, or a prompt on a frame, cannot be tracked.

    Args:
        column: name of the column that holds the value: `video` or `prompts`.
        expected: description of accepted values.
        got: description of the value, without its content.
        row: index label of the row, or None outside a table.
        frame: number of the frame.

    Example:
        >>> print(BadFrame("prompts", "a box with x1 < x2", "x1 = x2", frame=12).at(7))
        row 7, column 'prompts', frame 12: expected a box with x1 < x2, got x1 = x2
    """

    def __init__(self, column: str, expected: str, got: str, row: object | None = None, frame: int = 0) -> None:
        super().__init__(column, expected, got, row)
        self.frame = frame
        self.place += f", frame {frame}"

    def at(self, row: object) -> BadFrame:
        """Return a copy of the error with the index label of its row."""
        return type(self)(self.column, self.expected, self.got, row, self.frame)

    def renamed(self, names: Mapping[str, str]) -> BadFrame:
        """Return a copy of the error with the column name that the client uses."""
        return type(self)(names.get(self.column, self.column), self.expected, self.got, self.row, self.frame)


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
    """More rows failed than a batch job allows.

    Args:
        failed: number of failed rows.
        limit: number of rows that may fail.
    """

    def __init__(self, failed: int, limit: int) -> None:
        super().__init__(f"{failed} rows failed; the limit is {limit} (--error-threshold)")


class Overloaded(EndpointError, RuntimeError):
    """A queue is full or memory is short; the same request may succeed later."""

    code = "TEMPORARILY_UNAVAILABLE"
    status = 503


class DeadlineExceeded(EndpointError, RuntimeError):
    """A request exceeds its time limit.

    Args:
        seconds: the time limit.
    """

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

    torch has no exception class for failed allocations of host memory. It raises a RuntimeError, which this function
    recognises by its text.
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _OUT_OF_MEMORY_PHRASES)
    )


_OUT_OF_MEMORY_PHRASES = ("out of memory", "can't allocate memory", "not enough memory")


def kind(value: object) -> str:
    """Describe the type and size of a value for an error message, but not its content.

    Numbers are an exception: they are quoted.

    Example:
        >>> kind("secret"), kind([1, 2]), kind(0.5)
        ('text of 6 characters', 'a list of 2', 'the number 0.5')
    """
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
    """Describe a name that a client sent, for an error message.

    A name that resembles a known name is probably a typing error, so the description quotes it. Any other text may be
    request data, so only its type and size are described.

    Args:
        name: the client's name of a parameter or model.
        known: the accepted names.

    Example:
        >>> describe_name("on-error", ["on_error"]), describe_name("secret", ["on_error"])
        ("'on-error' (did you mean 'on_error'?)", 'text of 6 characters')
    """
    if isinstance(name, str) and len(name) <= MAX_NAME:
        matches = get_close_matches(name.strip().lower().replace("-", "_"), list(known), 1, 0.8)
        if matches:
            return f"'{matches[0]}'" if name == matches[0] else f"'{name}' (did you mean '{matches[0]}'?)"
    return kind(name)
