"""`karyon study`: what a study will do, and the study done."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

NAME = "study"
HELP = "Print the runs, cells and expected hours of a study, and run it with Snakemake."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("study", type=Path, help="a file of config/experiments/ with the key 'study'")
    parser.add_argument("--profile", default="profiles/local", help="of Snakemake (default profiles/local)")
    parser.add_argument("--dry-run", action="store_true", help="print what it will do, and stop")


def run(args: argparse.Namespace) -> int:
    """Print the plan; then hand over to Snakemake."""
    from karyon.errors import KaryonError
    from karyon.study.forecast import training_hours
    from karyon.study.plan import plan_study
    from karyon.training.experiment import read_yaml

    content = read_yaml(args.study)
    if not isinstance(content, dict) or "study" not in content:
        raise KaryonError(
            f"{args.study}: there is no key 'study'; a single training is run by `karyon train`"
        )
    study = plan_study(content["study"], str(args.study))
    trained = [one for one in study.runs if one.trains]
    for one in study.runs:
        learns = f"learns from {one.train_groups}" if one.trains else f"{one.model} as it is"
        print(f"{one.run}: {learns}" + (f", starts from {one.parent}" if one.parent else ""))
    print(f"{len(trained)} trainings, {len(study.runs)} inferences, 1 scoring")
    cells = len({one.variant for one in study.runs}) * len(study.groups)
    print(f"{cells} cells: {len(study.groups)} test groups ({', '.join(study.groups)})")
    print(f"about {training_hours(study):.1f} hours of training on one core or GPU as here")
    if args.dry_run:
        return 0
    command = [sys.executable, "-m", "snakemake", "--profile", args.profile]
    return subprocess.run([*command, "--configfile", str(args.study), "--", "matrix"], check=False).returncode  # noqa: S603
