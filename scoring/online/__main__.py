"""`python -m scoring.online`: the endpoint, as a server."""

from __future__ import annotations

import logging
import sys

import torch
import uvicorn
from pydantic_settings import CliApp, SettingsError

from scoring.online import app
from scoring.online.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    try:
        settings = CliApp.run(Settings, cli_args=arguments, cli_cmd_method_name="")
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # It would name a request's unknown columns, which are the client's own words.
    logging.getLogger("mlflow.models.utils").setLevel(logging.ERROR)
    torch.set_num_threads(1)  # for all threads but those that say otherwise, as model.threads tells
    try:
        endpoint = app.create(settings)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    uvicorn.run(
        endpoint,
        host=settings.host,
        port=settings.port,
        access_log=False,
        timeout_graceful_shutdown=int(settings.grace),
        # Longer than load balancers keep an idle connection, a minute as a rule: one that they reuse is still open.
        timeout_keep_alive=75,
        log_level="warning",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
