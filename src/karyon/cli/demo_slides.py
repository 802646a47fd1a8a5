"""``karyon demo-slides``: render synthetic H&E slides with known nuclei."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

NAME = "demo-slides"
HELP = "render synthetic H&E slides with known nuclei, and their cohort sheet"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write to")
    parser.add_argument("--slides", type=int, default=4, metavar="N", help="number of slides (default: 4)")
    parser.add_argument(
        "--size",
        type=parse_size,
        default=(3000, 2400),
        metavar="PX",
        help="size of each slide in pixels, PX or WIDTHxHEIGHT (default: 3000x2400)",
    )
    parser.add_argument("--mpp", type=float, default=0.5, help="microns per pixel (default: 0.5)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Render the cohort and print the path of its sheet."""
    from karyon.demo.cohort import render_cohort

    width, height = args.size
    print(render_cohort(args.out, args.slides, width, height, args.mpp, args.seed))
    return 0


def parse_size(text: str) -> tuple[int, int]:
    """``"3000"`` or ``"3000x2400"`` as ``(width, height)``.

    Raises:
        argparse.ArgumentTypeError: The text is neither.
    """
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size; expected pixels such as 3000 or 3000x2400")
    width = int(match[1])
    return width, int(match[2] or width)
