"""`karyon doctor`: see that a machine is ready before a large run."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "doctor"
HELP = "Check this machine before a large run: model, GPU, disk, SLURM; exit status 1 where a check fails."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "run",
        type=Path,
        nargs="?",
        metavar="CONFIG_OR_SHEET",
        help="what will be run, as for `karyon plan`; without it, disk is not compared with what is needed",
    )
    parser.add_argument(
        "--profile", default="local", help="the Snakemake profile: its name, or its folder (default: local)"
    )


def run(args: argparse.Namespace) -> int:
    """Print a table of checks.

    Raises:
        KaryonError: Configuration, sheet or profile have mistakes.
    """
    from karyon.cohort.configuration import complete_config, read_configuration
    from karyon.cohort.forecast import RESULTS, forecast_of
    from karyon.cohort.machine import FAIL, check_machine
    from karyon.cohort.slurm import check_slurm, read_profile

    profile = read_profile(args.profile)
    cluster = profile.get("executor") == "slurm"
    config = complete_config({"cohort": "doctor", "sheet": "none"})
    cost = None
    if args.run:
        config = read_configuration(args.run)
        jobs = profile.get("jobs", 1)
        cost = forecast_of(config, gpu=cluster, at_once=jobs if isinstance(jobs, int) else 1)
    checks = list(check_machine(RESULTS, config["model"], cost, cluster))
    checks += check_slurm(profile) if cluster else []
    for check in checks:
        print(f"{check.state:4}  {check.name:15} {check.text}")
    return int(any(check.state == FAIL for check in checks))
