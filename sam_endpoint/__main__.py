"""Run the console command `sam-endpoint`, which is also `python -m sam_endpoint`."""

from __future__ import annotations

import argparse
import importlib
import sys
from types import ModuleType

from sam_endpoint import __version__, commands
from sam_endpoint.model.errors import EndpointError


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the name of the command and its options; by default the arguments of the process.

    Returns:
        The exit code.

    Raises:
        SystemExit: the options are invalid, or they contain --help or --version.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser, subparsers = _parsers()
    name = next((word for word in arguments if not word.startswith("-")), "")
    if name not in subparsers:
        parser.parse_args(arguments)  # exits
    command, subparser = _load(name), subparsers[name]
    try:
        command.add_arguments(subparser)
        options = parser.parse_args(arguments)
        return int(command.run(options))
    except EndpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except commands.UsageError as error:
        subparser.error(str(error))
    except commands.CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(getattr(command, "STOPPED", "stopped"), file=sys.stderr)
        return 130


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the main parser, and the parser of each command by name, still without the options of the command."""
    parser = argparse.ArgumentParser(
        prog="sam-endpoint", description="Serve Segment Anything models behind an MLflow endpoint."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    group = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    subparsers = {}
    for name in commands.NAMES:
        text = (_load(name).__doc__ or "").strip()
        subparsers[name] = group.add_parser(
            name, help=text.splitlines()[0], description=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
    return parser, subparsers


def _load(name: str) -> ModuleType:
    return importlib.import_module(f"sam_endpoint.commands.{name}")


if __name__ == "__main__":
    sys.exit(main())
