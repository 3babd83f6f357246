"""Serve Segment Anything models to labelling tools, browsers, and clients of MLflow, Azure ML, Roboflow and others.

Examples:
  sam-endpoint serve
  sam-endpoint serve --model models:/sam@champion --host 0.0.0.0 --port 8080
  SAM_API_KEYS=secret sam-endpoint serve --catalog models.yaml

Environment variables can set all options: SAM_PORT sets --port, SAM_EMBEDDING_BYTES sets --embedding-bytes, and so on.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import gc
import ipaddress
import os
import socket
import sys
from functools import partial

from sam_endpoint.commands import CommandError, require_extra
from sam_endpoint.scoring.process import configure_process


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    require_extra("server")
    from pydantic_settings import CliSettingsSource

    from sam_endpoint.scoring.online.settings import EndpointSettings

    parser.set_defaults(
        settings_source=CliSettingsSource[argparse.ArgumentParser](EndpointSettings, root_parser=parser)
    )


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from pydantic import ValidationError
    from pydantic_settings import CliApp, SettingsError

    from sam_endpoint.scoring.online.settings import EndpointSettings

    source = options.settings_source
    try:
        settings = CliApp.run(EndpointSettings, cli_args=options, cli_settings_source=source, cli_cmd_method_name="")
    except SettingsError as error:
        raise CommandError(str(error)) from error
    except ValidationError as error:
        faults = (
            f"--{'.'.join(map(str, one['loc'])).replace('_', '-')}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        )
        raise CommandError("; ".join(faults)) from None
    if settings.grpc_port is not None:
        require_extra("grpc")
    listener = bind(settings.host, settings.port)  # fail before loading the model, which takes seconds
    configure_process(operator_threads=1)  # see model/threads.py
    # A thread that waits for the GIL gets it after this time at the latest. A click on the page has a dozen such waits.
    sys.setswitchinterval(0.001)
    # No thread runs while garbage is collected. With the default of 700 new objects, a large JSON body, which makes a
    # hundred thousand lists, sets off collections that take ten times as long as parsing the body.
    gc.set_threshold(50_000, 20, 10)

    import uvicorn

    from sam_endpoint.model.errors import EndpointError
    from sam_endpoint.scoring.online import app, logs
    from sam_endpoint.scoring.online.accepting import MAX_UNACCEPTED, accept_connections
    from sam_endpoint.scoring.online.connections import ConnectionGuard, max_connections
    from sam_endpoint.scoring.online.pacing import new_event_loop
    from sam_endpoint.scoring.runtime import one_line

    logs.configure_logging()
    try:
        endpoint = app.create(settings)
    except EndpointError:
        raise
    except Exception as error:
        raise CommandError(f"the endpoint cannot start: {type(error).__name__}: {one_line(error)}") from None
    logs.withhold_request_data()
    gc.collect()
    gc.freeze()  # the objects of the application live as long as the process; searching them takes 0.1 s
    grpc_server = None
    if settings.grpc_port is not None:
        from sam_endpoint.scoring.online.dialects.open_inference.grpc_server import GrpcServer
        from sam_endpoint.scoring.online.middleware.auth import Keys

        address = f"{_bracketed(settings.host)}:{settings.grpc_port}"
        # A message is in memory before the application counts it.
        max_calls = max(1, min(settings.in_flight, settings.memory // settings.body_bytes))
        grpc_server = GrpcServer(endpoint, address, settings.body_bytes, max_calls, Keys(settings.keys()))
    guard = ConnectionGuard(
        max_connections(settings.connections, settings.in_flight),
        settings.header_seconds,
        settings.body_seconds,
    )
    protocol = guard.protocol()
    config = uvicorn.Config(
        endpoint,
        http=protocol,
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=int(settings.grace),
        # Load balancers usually keep an idle connection for a minute. A longer time here ensures that they never reuse
        # a connection that the server has closed.
        timeout_keep_alive=75,
    )

    class Server(uvicorn.Server):
        """A server that prints its URL when it begins to listen, and starts and stops the gRPC server with itself."""

        def protocol(self) -> asyncio.Protocol:
            """Return the protocol of a new connection."""
            return protocol(config, self.server_state, self.lifespan.state)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            """Start to listen, and print the URL."""
            await super().startup([])
            if grpc_server is not None:
                print(f"gRPC on     {_bracketed(settings.host)}:{await grpc_server.start()}", flush=True)
            if self.started:
                listener.setblocking(False)
                listener.listen(MAX_UNACCEPTED)
                self.accepting = asyncio.create_task(
                    accept_connections(listener, self.protocol, is_computing=endpoint.state.catalog.is_computing)
                )
                print(f"serving on  {url_of(listener)}", flush=True)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            self.accepting.cancel()
            if grpc_server is not None:
                await grpc_server.stop(settings.grace)
            await super().shutdown(sockets)

    loop_factory = partial(new_event_loop, endpoint.state.catalog.is_computing)
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(Server(config).serve([listener]))
    except OSError as error:
        raise _cannot_listen(settings.host, settings.port, error) from None
    return 0


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket to an address, without listening.

    Args:
        host: name or address of this machine.
        port: port number; 0 for any free port.

    Returns:
        The bound socket.

    Raises:
        CommandError: the address cannot be used, for example because another process listens there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # Try to listen, because binding alone does not fail if another socket is bound to the same port.
        with socket.create_server(address, family=family):
            pass
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, error) from None
    return listener


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def url_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket. For a socket on all addresses, the URL has the loopback address."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        own = "[::1]" if ":" in host else "127.0.0.1"
        return f"http://{own}:{port}  (and at port {port} of this machine's other addresses)"
    return f"http://{_bracketed(host)}:{port}"


def _cannot_listen(host: str, port: int, error: Exception) -> CommandError:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return CommandError(f"port {port} of {host} is in use by another process; choose another --port, or 0 for any")
    if number == errno.EACCES:
        return CommandError(f"this user may not open port {port}; choose a --port above 1023")
    # The texts of the standard library's exceptions contain more than the reason.
    reason = error if isinstance(error, socket.gaierror) or not number else os.strerror(number)
    return CommandError(f"port {port} of --host '{host}' cannot be opened: {reason}")
