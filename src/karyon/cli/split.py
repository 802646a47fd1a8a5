"""``karyon split``: the divisions of a protocol, each as a sheet to train, validate and test on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

NAME = "split"
HELP = "write a sheet for each division of random splits, of cross-validation or of leave-one-patient-out"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("sheet", type=Path, help="sheet of annotated images; its column split is not read")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="where split_1.tsv and so on go"
    )
    protocol = parser.add_mutually_exclusive_group(required=True)
    protocol.add_argument("--random", type=int, metavar="N", help="N independent draws of --train patients")
    protocol.add_argument("--folds", type=int, metavar="N", help="cross-validation with N folds of patients")
    protocol.add_argument(
        "--leave-one-out", action="store_true", help="a fold for each patient, who alone tests"
    )
    parser.add_argument("--train", type=int, metavar="N", help="of --random: patients to learn from")
    parser.add_argument(
        "--organs", nargs="+", default=[], metavar="ORGAN", help="of --random: all other organs test"
    )
    parser.add_argument(
        "--validation",
        type=int,
        default=1,
        metavar="N",
        help="how many of the patients to learn from choose how maps are read (default 1)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the draws (default 1)")


def run(args: argparse.Namespace) -> int:
    """Write the sheets and say on standard error what is in them.

    Raises:
        SheetError: The sheet has mistakes, there are not enough patients, or the folder has splits already.
    """
    from karyon.errors import SheetError
    from karyon.io.sheet_writer import write_sheet
    from karyon.io.sheets import read_sheet
    from karyon.io.splits import folds, random_splits

    if (args.random is None) != (args.train is None) or (args.organs and args.random is None):
        raise SheetError("--random needs --train; --train and --organs are of --random alone")
    if list(args.output.glob("split_*.tsv")):
        raise SheetError(f"{args.output}: there are splits in it; name another folder, or remove them")
    sheet = read_sheet(args.sheet)
    if args.random is None:
        divisions = list(folds(sheet, args.folds, args.validation, args.seed))
    else:
        divisions = list(
            random_splits(sheet, args.random, args.train, args.validation, args.seed, args.organs)
        )
    for number, division in enumerate(divisions, start=1):
        path = args.output / f"split_{number}.tsv"
        write_sheet(division, path)
        images = ", ".join(f"{count} {split}" for split, count in division["split"].value_counts().items())
        print(f"{path}: images {images}", file=sys.stderr)
    return 0
