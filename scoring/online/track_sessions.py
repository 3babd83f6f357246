"""Keep the videos that clients track step by step, and let go of those that are no longer used."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from sam_endpoint.model.call import Call
from sam_endpoint.model.errors import EndpointError, Overloaded
from sam_endpoint.model.tracking.session import TrackingSession
from sam_endpoint.scoring.online.served_model import ServedModel
from sam_endpoint.scoring.online.settings import EndpointSettings

MakeTracking = Callable[[Callable[[int], None]], TrackingSession]
WAIT_SECONDS = 0.1  # interval at which a waiting run checks whether its client is still connected


class UnknownSession(EndpointError, ValueError):
    """The client has no session of this id, or the session has expired."""

    code = "RESOURCE_DOES_NOT_EXIST"
    status = 404

    def __init__(self) -> None:
        super().__init__("no session of this id: it has expired or was closed; send the video again")


class StoredSession:
    """A session of one client.

    Args:
        tenant: tenant id of the client.
        served: the model.
        memory: holds the session's share of the memory budget until `close`.
        tracking: makes the session, given the function that counts its bytes.

    Attributes:
        id: the name of the session, which only its client knows.
        used: when the session was used last, in seconds of `time.monotonic`.
        notes: what a dialect keeps with the session.
    """

    def __init__(
        self,
        tenant: str,
        served: ServedModel,
        memory: Call,
        tracking: MakeTracking,
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        self.tenant, self.served, self.used = tenant, served, time.monotonic()
        self._memory, self._lock = memory, Lock()
        self._running: Call | None = None
        self.notes: dict[str, Any] = {}
        self.tracking = tracking(self.keep)

    @property
    def is_running(self) -> bool:
        """Whether a run is in progress."""
        return self._running is not None

    def keep(self, nbytes: int) -> None:
        """Hold bytes of the memory budget until `close`. Raises the exceptions of `Call.keep`."""
        self._memory.restart()
        self._memory.keep(nbytes)

    @contextmanager
    def run(self, call: Call) -> Iterator[TrackingSession]:
        """Cancel the run that is in progress, wait for its end, and run during a block.

        Args:
            call: context of the request that runs. Raises the exceptions of `Call.check` while waiting.
        """
        self.cancel()
        while not self._lock.acquire(timeout=WAIT_SECONDS):
            call.check()
        self._running = call
        try:
            yield self.tracking
        finally:
            self._running, self.used = None, time.monotonic()
            self._lock.release()

    def cancel(self) -> None:
        """Cancel the run that is in progress, if there is one."""
        running = self._running
        if running is not None:
            running.cancel()

    def close(self) -> None:
        """Cancel the run that is in progress, and release the memory."""
        self.cancel()
        self._memory.close()


class TrackSessions:
    """The sessions of all clients. Safe to share between threads.

    Args:
        settings: limits on sessions.
        keys: number of API keys. With several keys, one key has at most half of the sessions.
        new_call: creates a `Call` of a tenant.

    Attributes:
        seconds: time after which a session that is not used is closed.
        new_call: as above.
    """

    def __init__(self, settings: EndpointSettings, keys: int, new_call: Callable[[str], Call]) -> None:
        self._max, self.seconds, self.new_call = settings.track_sessions, settings.track_session_seconds, new_call
        self._max_of_tenant = max(1, self._max // 2) if keys > 1 else self._max
        self._sessions: dict[str, StoredSession] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, tenant: str, served: ServedModel, nbytes: int, tracking: MakeTracking) -> StoredSession:
        """Store a new session.

        Args:
            tenant: tenant id of the client.
            served: the model.
            nbytes: size of the encoded video in bytes.
            tracking: makes the session, given the function that counts its bytes.

        Raises:
            Overloaded: there are too many sessions, or too little memory.
        """
        self.expire()
        stored = StoredSession(tenant, served, self.new_call(tenant), tracking)
        with self._lock:
            of_tenant = sum(other.tenant == tenant for other in self._sessions.values())
            if len(self._sessions) >= self._max or of_tenant >= self._max_of_tenant:
                raise Overloaded("too many sessions are open; close a session, or try again later")
            self._sessions[stored.id] = stored
        try:
            stored.keep(nbytes)
        except BaseException:
            self.close(stored)
            raise
        return stored

    def get(self, tenant: str, session: str) -> StoredSession:
        """Return a session of a tenant. Raises UnknownSession."""
        self.expire()
        stored = self._sessions.get(session)
        if stored is None or stored.tenant != tenant:
            raise UnknownSession
        stored.used = time.monotonic()
        return stored

    def close(self, stored: StoredSession) -> None:
        """Close a session, and release its memory."""
        with self._lock:
            self._sessions.pop(stored.id, None)
        stored.close()

    def expire(self) -> None:
        """Close the sessions that were not used for `seconds`."""
        oldest = time.monotonic() - self.seconds
        for stored in list(self._sessions.values()):
            if stored.used < oldest and not stored.is_running:
                self.close(stored)
