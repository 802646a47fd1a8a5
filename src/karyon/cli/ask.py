"""`karyon ask`: questions to a cohort's nuclei."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

NAME = "ask"
HELP = "Counts and fractions of classes, distances between nuclei, density heat maps of a cohort's slides."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("cohort", type=Path, help="results/<cohort>")
    parser.add_argument(
        "question",
        choices=("counts", "distances", "heatmaps"),
        help="counts: nuclei, nuclei per mm2 and fraction of each class, as CSV; distances: from nuclei of a "
        "class to the nearest of each class, as CSV; heatmaps: <cohort>/heatmaps/<slide_id>.png",
    )
    parser.add_argument(
        "--slide", nargs="+", default=[], metavar="ID", help="only these slides (default: all)"
    )


def run(args: argparse.Namespace) -> int:
    """Answer on standard output, or write pictures and print where they are."""
    from karyon.cohort.questions import count_nuclei, draw_heatmaps, nearest_distances, read_slides

    slides = read_slides(args.cohort, args.slide)
    if args.question == "heatmaps":
        for path in draw_heatmaps(args.cohort, slides):
            print(path)
        return 0
    answer = {"counts": count_nuclei, "distances": nearest_distances}[args.question]
    answer(args.cohort, slides).to_csv(sys.stdout, index=False, float_format="%.6g")
    return 0
