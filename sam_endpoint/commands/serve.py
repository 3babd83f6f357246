"""Serve Segment Anything to clients of MLflow, Azure ML, Roboflow and Livepeer, and to browsers.

Examples:
  sam-endpoint serve
  sam-endpoint serve --model models:/sam@champion --host 0.0.0.0 --port 8080
  SAM_API_KEYS=secret sam-endpoint serve --catalog models.yaml

Every option can also be set by an environment variable: SAM_PORT for --port, SAM_EMBEDDING_BYTES for --embedding-bytes.
"""

from __future__ import annotations

import argparse
import logging

from sam_endpoint.commands import CommandError, require_extra
from sam_endpoint.scoring.process import configure_process


def add_arguments(parser: argparse.ArgumentParser) -> None:
    require_extra("server")
    from pydantic_settings import CliSettingsSource

    from sam_endpoint.scoring.online.settings import EndpointSettings

    parser.set_defaults(
        settings_source=CliSettingsSource[argparse.ArgumentParser](EndpointSettings, root_parser=parser)
    )


def run(options: argparse.Namespace) -> int:
    from pydantic import ValidationError
    from pydantic_settings import CliApp, SettingsError

    from sam_endpoint.scoring.online.settings import EndpointSettings

    source = options.settings_source
    try:
        settings = CliApp.run(EndpointSettings, cli_args=options, cli_settings_source=source, cli_cmd_method_name="")
    except SettingsError as error:
        raise CommandError(str(error)) from error
    except ValidationError as error:
        faults = (f"--{'.'.join(map(str, one['loc'])).replace('_', '-')}: {one['msg']}" for one in error.errors())
        raise CommandError("; ".join(faults)) from None
    configure_process(operator_threads=1)  # see model/threads.py

    import uvicorn

    from sam_endpoint.scoring.online import app

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # Its messages would contain the names of a request's unknown columns, which are the client's data.
    logging.getLogger("mlflow.models.utils").setLevel(logging.ERROR)
    endpoint = app.create(settings)
    uvicorn.run(
        endpoint,
        host=settings.host,
        port=settings.port,
        access_log=False,
        timeout_graceful_shutdown=int(settings.grace),
        # Longer than load balancers keep an idle connection, usually a minute, so that they never reuse a closed one.
        timeout_keep_alive=75,
        log_level="warning",
    )
    return 0
