"""`karyon scores`: print what a cohort's run found."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "scores"
HELP = "Print a cohort's counts and, where slides are annotated, precision, recall and F1."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("cohort", type=Path, help="results/<cohort>")
    parser.add_argument("--by", help="also by organ, stain, split or label_quality")
    parser.add_argument("--split", nargs="+", help="only slides of these values of the sheet's column split")


def run(args: argparse.Namespace) -> int:
    """Print the tables."""
    import pandas as pd

    from karyon.cohort.summary import GROUPINGS, score_table
    from karyon.errors import KaryonError

    path = args.cohort / "slides.parquet"
    if not path.is_file():
        raise KaryonError(f"{path}: not there; run the workflow for this cohort first")
    if args.by and args.by not in GROUPINGS:
        raise KaryonError(f"--by is {args.by}; expected one of {', '.join(GROUPINGS)}")
    slides = pd.read_parquet(path)
    if args.split:
        slides = slides[slides["split"].isin(args.split)]
    failed = slides[slides["status"].isin(["failed", "skipped"])]
    total = int(slides["nuclei"].sum()) if "nuclei" in slides else 0
    print(f"{len(slides)} slides, {len(failed)} failed, {total:,} nuclei")
    for row in failed.itertuples():
        print(f"  {row.slide_id}: {row.failed_stage}: {row.error}")
    known = pd.read_parquet(args.cohort / "scores.parquet")
    if not known.empty:
        scores = score_table(slides, known["radius_um"].unique().tolist())
        chosen = scores[scores["grouping"].isin(["all", args.by])].drop(columns="grouping")
        print(chosen.to_string(index=False, float_format="{:.4f}".format))
    return 0
