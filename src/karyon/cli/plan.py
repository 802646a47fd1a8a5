"""`karyon plan`: what a cohort will cost, before anything is run."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "plan"
HELP = "Say what a cohort will cost before it is run: jobs, GPU and CPU hours, disk, and a good shard_size."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "run",
        type=Path,
        metavar="CONFIG_OR_SHEET",
        help="what Snakemake is given as --configfile; or a cohort sheet, for a run with the defaults",
    )
    parser.add_argument("--cpu", action="store_true", help="infer on CPUs, as the local profile does")
    parser.add_argument(
        "--jobs", type=int, default=200, metavar="N", help="jobs at once, as in the profile (default: 200)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the forecast.

    Raises:
        KaryonError: The configuration or the sheet has mistakes, or no slide can be opened.
    """
    from karyon.cohort.configuration import read_configuration
    from karyon.cohort.forecast import describe, forecast_of

    for name, text in describe(forecast_of(read_configuration(args.run), not args.cpu, args.jobs)):
        print(f"{name:17} {text}")
    return 0
