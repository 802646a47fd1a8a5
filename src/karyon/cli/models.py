"""`karyon models`: list the models that come with Karyon."""

from __future__ import annotations

import argparse
import sys

NAME = "models"
HELP = "List the models of resources/models: what each is, takes and reaches."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: there are none."""


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from karyon.errors import KaryonError
    from karyon.models.card import shipped_models
    from karyon.models.catalogue import COLUMNS, describe_model

    rows: list[tuple[str, ...]] = [COLUMNS]
    status = 0
    for folder in shipped_models():
        try:
            rows.append(describe_model(folder))
        except KaryonError as error:
            print(f"karyon: {error}", file=sys.stderr)
            status = 1
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return status
