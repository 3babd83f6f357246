"""What is said to a user whose input cannot be scored."""

from __future__ import annotations

NO_MEMORY = "there is not enough memory for this now"
DEFECT = "the request could not be answered; the server's log says why"


class BadInput(ValueError):
    """One value of one row that cannot be scored: the column, what was expected and what came.

    The message never holds the payload itself, only its kind, shape or size, so it can be logged and returned.
    """

    def __init__(self, column: str, expected: str, got: str, row: object | None = None) -> None:
        self.column = column
        self.expected = expected
        self.got = got
        self.row = row
        super().__init__(column, expected, got)

    def at(self, row: object) -> BadInput:
        """The same error, with the index of the row it stands in."""
        return type(self)(self.column, self.expected, self.got, row)

    def __str__(self) -> str:
        place = f"column '{self.column}'" if self.row is None else f"row {self.row}, column '{self.column}'"
        return f"{place}: expected {self.expected}, got {self.got}"


class UnknownImage(BadInput):
    """An `image_id` that names no kept image (HTTP 404)."""


class BadParameter(ValueError):
    """A parameter that is unknown or out of its range."""


class Busy(RuntimeError):
    """There is no room for this now, in a queue or in memory; later there may be (HTTP 503)."""


class Gone(RuntimeError):
    """Who asked has hung up, so that nobody waits for the answer."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: Python's and numpy's, or torch's, which has no class of its own for the host's."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(said in str(error).lower() for said in _OUT_OF_MEMORY)
    )


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def kind(value: object) -> str:
    """A short name of what came, for messages: its type and size, never its content."""
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
    shape = getattr(value, "shape", None)
    return f"an array of shape {tuple(shape)}" if shape is not None else f"a {type(value).__name__}"
