"""`karyon study`: train and score the variants of a study file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

NAME = "study"
HELP = "Train and score the variants of a study file at equal budget, and print how they compare."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("study", type=Path, help="a file of config/studies/")
    parser.add_argument("--output", type=Path, help="folder of the runs; default runs/<name of the study>")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="run these variants, not all")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--dry-run", action="store_true", help="print the runs and stop")


def run(args: argparse.Namespace) -> int:
    """Do the runs that are not done yet, then print the table of all that are."""
    from karyon.io.atomic import atomic_path
    from karyon.study.definition import chosen_runs, read_study
    from karyon.study.runs import do_run
    from karyon.study.table import read_scores, study_table

    study, runs = read_study(args.study)
    folder = args.output or Path("runs") / study.name
    chosen = chosen_runs(runs, args.only)
    if args.dry_run:
        for one in chosen:
            experiment = one.experiment
            print(f"{one.name}: {experiment.steps} steps of {experiment.batch} x {experiment.crop_px} px")
        return 0
    for one in chosen:
        do_run(one, study.test_splits, folder, args.threads)
    table = study_table(read_scores(runs, folder))
    with atomic_path(folder / "table.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    print(_readable(table).to_string(index=False))
    print("In brackets: 95 % intervals, bootstrapped over patients. f1_seeds: each seed's pooled F1.")
    return 0


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a terminal: an interval beside each F1."""
    rows = table[["group", "variant", "images"]].copy()
    for name in ("precision", "recall"):
        rows[name] = table[name].map("{:.3f}".format)
    bounds = table[["f1", "f1_low", "f1_high"]].itertuples(index=False, name=None)
    rows["f1"] = [f"{value:.3f} ({low:.3f}-{high:.3f})" for value, low, high in bounds]
    rows["f1_seeds"] = [" ".join(f"{value:.3f}" for value in seeds) for seeds in table["f1_seeds"]]
    rows["difference"] = table["difference"].map("{:+.3f}".format)
    for name in ("p_value", "mean_image_f1", "distance_um"):
        rows[name] = table[name].map("{:.3f}".format)
    return rows
