"""`karyon scores`: print what a cohort's run found."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

NAME = "scores"
HELP = "Print a cohort's counts and, where slides are annotated, F1 and, of outlines, AJI and PQ."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("cohort", type=Path, help="results/<cohort>")
    parser.add_argument("--by", help="also by organ, stain, split or label_quality")
    parser.add_argument("--split", nargs="+", help="only slides of these values of the sheet's column split")
    parser.add_argument(
        "--card", type=Path, help="model folder: write the scores into its card as test metrics"
    )


def run(args: argparse.Namespace) -> int:
    """Print the tables."""
    import pandas as pd

    from karyon.cohort.scores import GROUPINGS
    from karyon.errors import KaryonError
    from karyon.io.schemas import did_you_mean

    path = args.cohort / "slides.parquet"
    if not path.is_file():
        raise KaryonError(f"{path}: not there; run the workflow for this cohort first")
    if args.by and args.by not in GROUPINGS:
        raise KaryonError(f"--by is {args.by}; expected one of {', '.join(GROUPINGS)}")
    slides = pd.read_parquet(path)
    if args.split:
        splits = sorted(set(slides["split"]))
        for split in set(args.split) - set(splits):
            closest, there = did_you_mean(split, splits), ", ".join(map(repr, splits))
            raise KaryonError(f"--split: no slide has '{split}'{closest}; there are {there}")
        slides = slides[slides["split"].isin(args.split)]
    failed = slides[slides["status"].isin(["failed", "skipped"])]
    total = int(slides["nuclei"].sum()) if "nuclei" in slides else 0
    print(f"{len(slides)} slides, {len(failed)} failed, {total:,} nuclei")
    for row in failed.itertuples():
        print(f"  {row.slide_id}: {row.failed_stage}: {row.error}")
    known = pd.read_parquet(args.cohort / "scores.parquet")
    if not known.empty:
        _print_scores(slides, known, args)
    return 0


def _print_scores(slides: pd.DataFrame, known: pd.DataFrame, args: argparse.Namespace) -> None:
    """Score the chosen slides anew, at the radii of the run."""
    from karyon.cohort.classes import class_table
    from karyon.cohort.scores import score_table
    from karyon.cohort.segmentation import segmentation_table

    radii, model = known["radius_um"].unique().tolist(), known["model"].iloc[0]
    scores, segmentation = score_table(slides, radii, args.cohort, model), segmentation_table(slides, model)
    if scores.empty:
        print("None of these slides is annotated.")
        return
    if args.card:
        _write_card(args.card, scores, segmentation, args)
    groupings = ["all", args.by]
    print(_readable(scores[scores["grouping"].isin(groupings)]).to_string(index=False))
    if not segmentation.empty:
        chosen = segmentation[segmentation["grouping"].isin(groupings)]
        print(_readable_areas(chosen).to_string(index=False))
    classes = class_table(slides, radii[0], args.cohort, model)
    if not classes.empty:
        chosen = classes[classes["grouping"].isin(groupings)]
        print(_readable_classes(chosen).to_string(index=False))
    print(f"Model {model}. In brackets: 95 % intervals, bootstrapped over patients.")


def _write_card(
    folder: Path, scores: pd.DataFrame, segmentation: pd.DataFrame, args: argparse.Namespace
) -> None:
    """Put the figures of the chosen slides, at every radius and of areas, into a model's card."""
    from karyon.cohort.scores import card_metrics
    from karyon.errors import KaryonError
    from karyon.models.card import read_card, write_card

    card = read_card(folder)
    model = scores["model"].iloc[0]
    if card.name != model:
        raise KaryonError(f"--card is of {card.name}, the scores are of {model}")
    images = " and ".join(args.split or ["all slides"]) + f" of {args.cohort.name}"
    metrics = card.metrics | {"test": card_metrics(scores, segmentation, images)}
    write_card(folder, replace(card, metrics=metrics))


def _readable(scores: pd.DataFrame) -> pd.DataFrame:
    """The score table for a terminal: an interval beside each figure."""
    table = scores[["group", "radius_um", "slides", "patients", "annotated", "tp", "fp", "fn"]].copy()
    for name in ("precision", "recall", "f1", "mean_slide_f1"):
        table[name] = _with_interval(scores, name, f"{name}_low", f"{name}_high")
    for name in ("average_precision", "distance_mean_um", "distance_sd_um"):
        table[name] = scores[name].map("{:.4f}".format)
    return table.rename(columns={"average_precision": "AP"})


def _readable_areas(segmentation: pd.DataFrame) -> pd.DataFrame:
    """The figures of areas for a terminal: a line each, its mean over the slides beside the pooled one."""
    means, pooled = (segmentation[segmentation["average"] == average] for average in ("macro", "micro"))
    table = means[["group", "figure", "slides", "patients"]].copy()
    table["mean_slide"] = _with_interval(means, "value", "low", "high")
    table["pooled"] = _with_interval(pooled, "value", "low", "high")
    return table


def _readable_classes(classes: pd.DataFrame) -> pd.DataFrame:
    """The figures of classes for a terminal; the accuracy is of all classes of a group together."""
    table = classes[["group", "rule", "class_name", "slides", "tp", "fp", "fn"]].copy()
    for name in ("precision", "recall", "f1", "accuracy"):
        table[name] = _with_interval(classes, name, f"{name}_low", f"{name}_high")
    return table


def _with_interval(table: pd.DataFrame, *columns: str) -> list[str]:
    rows = table[list(columns)].itertuples(index=False, name=None)
    return [f"{value:.4f} ({low:.3f}-{high:.3f})" for value, low, high in rows]
