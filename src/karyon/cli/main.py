"""The command `karyon`: one subcommand per module of this package."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from karyon import __version__
from karyon.errors import KaryonError

# What a shell reports of a program that SIGPIPE ended.
PIPE_CLOSED = 141
COMMANDS = (
    "ask",
    "bench",
    "demo_slides",
    "doctor",
    "downsample",
    "evaluate",
    "export",
    "link_profiles",
    "models",
    "plan",
    "preview_augmentation",
    "scores",
    "sheet",
    "split",
    "study",
    "train",
)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run the subcommand.

    Args:
        arguments: Words after the program's name; ``None`` takes the process' own.

    Returns:
        Exit status: 0, or 1 with a message where the user has something to mend; 141, in silence, where
        nobody reads on, as in ``karyon ask COHORT counts | head``.
    """
    try:
        try:
            return _run(arguments)
        finally:
            # What is held back would be written at the interpreter's end, where nothing is caught.
            print(end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def _run(arguments: list[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="karyon", description="Every nucleus in a cohort of whole-slide images."
    )
    parser.add_argument("--version", action="version", version=f"karyon {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f"karyon.cli.{name}")
        subparser = subparsers.add_parser(module.NAME, help=module.HELP, description=module.HELP)
        module.configure(subparser)
        subparser.set_defaults(handler=module.run)
    parsed = parser.parse_args(arguments)
    try:
        return parsed.handler(parsed)
    except KaryonError as error:
        print(f"karyon: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
