"""What an exception means to the client of a request: an HTTP status, an error code and a message."""

from __future__ import annotations

from dataclasses import dataclass

from sam_endpoint.model.errors import INTERNAL_ERROR, OUT_OF_MEMORY, EndpointError, is_out_of_memory

CODES = {
    400: "INVALID_PARAMETER_VALUE",
    401: "UNAUTHENTICATED",
    404: "RESOURCE_DOES_NOT_EXIST",
    503: "TEMPORARILY_UNAVAILABLE",
}


@dataclass(frozen=True)
class Problem:
    """An error as a response reports it; each dialect only shapes it.

    Attributes:
        status: HTTP status.
        message: text for the client; it never holds request data.
        code: MLflow's name of the error class.
    """

    status: int
    message: str
    code: str = "INTERNAL_ERROR"

    @classmethod
    def of_status(cls, status: int, message: str) -> Problem:
        """Return a problem with the error code that goes with a status."""
        return cls(status, message, CODES.get(status, "INTERNAL_ERROR"))


def problem_of(error: Exception) -> Problem:
    """Return what to tell the client about an exception.

    Exceptions that are not this project's own are internal errors; the log has their type and place.
    """
    if isinstance(error, EndpointError):
        return Problem(error.status, str(error), error.code)
    if isinstance(error, RecursionError):
        return Problem.of_status(400, "the request is nested too deep")
    if is_out_of_memory(error):
        return Problem.of_status(503, OUT_OF_MEMORY)
    return Problem.of_status(500, INTERNAL_ERROR)


def is_expected(error: Exception) -> bool:
    """Return whether an exception is the client's to handle; all others are logged with their traceback."""
    return isinstance(error, (EndpointError, RecursionError))
