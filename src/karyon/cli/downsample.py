"""`karyon downsample`: annotated images at a lower magnification."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "downsample"
HELP = "Write a sheet's images at a coarser resolution, to see what a model loses at 20x or 10x."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("sheet", type=Path, help="cohort sheet of images small enough to be held")
    parser.add_argument("output", type=Path, help="folder; gets images/ and cohort.tsv")
    parser.add_argument(
        "--mpp", type=float, required=True, help="microns per pixel: 0.5 is about 20x, 1.0 about 10x"
    )


def run(args: argparse.Namespace) -> int:
    """Write images and sheet, and say where the sheet is."""
    from karyon.cohort.downsample import downsample_cohort

    rows = downsample_cohort(args.sheet, args.mpp, args.output)
    print(f"{len(rows)} images at {args.mpp:g} microns per pixel: {args.output / 'cohort.tsv'}")
    return 0
