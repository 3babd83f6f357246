"""The interface that every dialect implements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fastapi import APIRouter
from starlette.responses import Response

from sam_endpoint.scoring.errors import Problem


@dataclass(frozen=True)
class Dialect:
    """How one client family speaks to the endpoint.

    Attributes:
        name: the client family.
        prefixes: beginnings of the paths that belong to it.
        router: its routes; they translate requests into calls of an Engine or Scorer, and the results back.
        shape: turns an error into the response that its clients read.
        fields: its names for columns of the table contract, used in error messages.
    """

    name: str
    prefixes: tuple[str, ...]
    router: APIRouter
    shape: Callable[[Problem], Response]
    fields: Mapping[str, str] = field(default_factory=dict)

    def owns(self, path: str) -> bool:
        """Return whether a path belongs to this dialect."""
        return path.startswith(self.prefixes)
