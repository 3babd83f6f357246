"""Convert exceptions to the HTTP status, error code and message that the client receives."""

from __future__ import annotations

from dataclasses import dataclass

from sam_endpoint.model.errors import INTERNAL_ERROR, OUT_OF_MEMORY, EndpointError, is_out_of_memory

CODES = {
    400: "INVALID_PARAMETER_VALUE",
    401: "UNAUTHENTICATED",
    404: "RESOURCE_DOES_NOT_EXIST",
    422: "INVALID_PARAMETER_VALUE",
    503: "TEMPORARILY_UNAVAILABLE",
}


@dataclass(frozen=True)
class Problem:
    """An error as a response reports it. Each client dialect formats the same three values differently.

    Attributes:
        status: HTTP status.
        message: text for the client; it never holds request data.
        code: MLflow's name for the error class.
    """

    status: int
    message: str
    code: str = "INTERNAL_ERROR"

    @classmethod
    def of_status(cls, status: int, message: str) -> Problem:
        """Return a problem with an HTTP status, a message for the client, and MLflow's error code for the status."""
        return cls(status, message, CODES.get(status, "INTERNAL_ERROR"))


def problem_of(error: Exception) -> Problem:
    """Convert an exception to the problem that the client receives.

    The client receives the message of an `EndpointError`. Every unexpected exception becomes status 500 with a fixed
    message, because its text could contain request data.
    """
    if isinstance(error, EndpointError):
        return Problem(error.status, str(error), error.code)
    if isinstance(error, RecursionError):
        return Problem.of_status(400, "the request is nested too deeply")
    if is_out_of_memory(error):
        return Problem.of_status(503, OUT_OF_MEMORY)
    return Problem.of_status(500, INTERNAL_ERROR)


def is_expected(error: Exception) -> bool:
    """Return whether the client caused an exception. The server logs all other exceptions with a traceback."""
    return isinstance(error, (EndpointError, RecursionError))
