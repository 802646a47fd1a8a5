"""``karyon sheet``: a cohort sheet from a folder of slides."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from karyon.errors import SheetError
from karyon.io.sheet_writer import sheet_from_folder, write_sheet

NAME = "sheet"
HELP = "write a cohort sheet of every slide and image in a folder"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the slides are, at any depth")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE.tsv",
        help="sheet to write (.tsv or .csv, optionally .gz), with paths relative to its folder; "
        "without it the sheet goes to standard output, with absolute paths",
    )
    parser.add_argument("--force", action="store_true", help="replace the sheet where it exists")


def run(args: argparse.Namespace) -> int:
    """Write the sheet and say on standard error how many slides are in it.

    Raises:
        SheetError: There are no slides, or the sheet exists and ``--force`` was not given.
    """
    if args.output and args.output.exists() and not args.force:
        raise SheetError(f"{args.output}: the sheet exists; give another name, or --force to replace it.")
    frame = sheet_from_folder(args.folder)
    if args.output:
        write_sheet(frame, args.output)
    else:
        frame.to_csv(sys.stdout, sep="\t", index=False)
    where = f" written to {args.output}" if args.output else ""
    print(f"{len(frame)} slides found in {args.folder}{where}", file=sys.stderr)
    return 0
