"""`karyon bench`: measure speed and memory, each figure beside its peer and its goal."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "bench"
HELP = "Measure speed and memory; prints one JSON object a figure."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run (default: every one)")
    parser.add_argument("--list", action="store_true", help="name every bench and what it measures")
    parser.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="side of the slide or map in pixels, or number of points, slides or images; "
        "goals are for the default",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("results/bench"),
        help="folder for slides and results (default: results/bench)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the benches one after the other; a goal that is missed is no error.

    Raises:
        KaryonError: There is no bench of a name.
    """
    from karyon.bench.catalogue import BENCHES
    from karyon.errors import KaryonError

    unknown = [name for name in args.names if name not in BENCHES]
    if unknown:
        raise KaryonError(f"there is no bench '{unknown[0]}'; expected one of {', '.join(BENCHES)}")
    if args.list:
        for name, bench in BENCHES.items():
            print(f"{name:12} {bench.summary} (size {bench.side:,})")
        return 0
    for name in args.names or BENCHES:
        for measurement in BENCHES[name].measure(args.cache, args.size or BENCHES[name].side):
            print(measurement.to_json(), flush=True)
    return 0
