"""One row per slide for the whole cohort, and its pooled scores."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from karyon.cohort.classes import class_table
from karyon.cohort.scores import curve_table, score_table
from karyon.cohort.segmentation import segmentation_table
from karyon.cohort.shard import DONE, FAILED, NO_TISSUE, SKIPPED, explain_full_disk
from karyon.io.atomic import atomic_path

STAGES = ("tissue", "stain", "infer", "stitch", "nuclei", "evaluate")
COMMON = ("slide_id", "status", "error", "warning", "seconds", "fingerprint")


def summarise(
    plans: Sequence[str],
    manifests: Sequence[str],
    radii_um: Sequence[float],
    model: str,
    slides: str,
    scores: str,
    segmentation: str,
    class_scores: str,
    curves: str,
) -> None:
    """Write the cohort's tables of slides, scores, figures of areas and of classes, and curves.

    Args:
        plans: The shards' TSVs.
        manifests: All manifests of all stages.
        radii_um: Match radii in microns.
        model: Name of the model.
        slides: ``results/<cohort>/slides.parquet``.
        scores: ``results/<cohort>/scores.parquet``.
        segmentation: ``results/<cohort>/segmentation.parquet``.
        class_scores: ``results/<cohort>/class_scores.parquet``.
        curves: ``results/<cohort>/curves.parquet``.
    """
    table, cohort = slide_table(plans, manifests), Path(slides).parent
    frames = {
        slides: table,
        scores: score_table(table, radii_um, cohort, model),
        segmentation: segmentation_table(table, model),
        class_scores: class_table(table, radii_um[0], cohort, model),
        curves: curve_table(table, cohort),
    }
    for path, frame in frames.items():
        with explain_full_disk("summary", cohort), atomic_path(Path(path)) as temporary:
            frame.to_parquet(temporary, index=False)


def slide_table(plans: Sequence[str], manifests: Sequence[str]) -> pd.DataFrame:
    """One row per slide: sheet columns, status, counts, stain facts, seconds per stage.

    ``status`` and ``error`` are those of the first stage that could not finish, named in
    ``failed_stage``; warnings of all stages are joined.
    """
    plan = pd.concat(
        [pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, quoting=3) for path in plans]
    )
    table = plan[["slide_id", "path", "organ", "stain", "patient", "split", "label_quality"]]
    table = table.sort_values("slide_id").set_index("slide_id")
    table = table.assign(status=DONE, failed_stage="", error="", warning="")
    for stage in STAGES:
        rows = pd.concat([pd.read_parquet(path) for path in manifests if Path(path).parent.name == stage])
        rows = rows.set_index("slide_id").reindex(table.index)
        first = (table["status"] == DONE) & rows["status"].isin([FAILED, SKIPPED, NO_TISSUE])
        # The annotations of a slide without tissue may be unreadable, too.
        first |= (table["status"] == NO_TISSUE) & (rows["status"] == FAILED)
        table.loc[first, "status"] = rows.loc[first, "status"]
        table.loc[first, "error"] = rows.loc[first, "error"]
        table.loc[first & (rows["status"] == FAILED), "failed_stage"] = stage
        said = rows["warning"].fillna("")
        both = (table["warning"] != "") & (said != "")
        table["warning"] = table["warning"] + both.map({True: "; ", False: ""}) + said
        table[f"seconds_{stage}"] = rows["seconds"]
        for column in rows.columns.difference(list(COMMON), sort=False):
            table[column] = rows[column]
    return table.reset_index()


def check_failures(slides: str, max_failed_fraction: float, verdict: str) -> None:
    """Turn too many failed slides into an error, after everything else is written.

    Args:
        slides: The cohort's slide table.
        max_failed_fraction: Share of slides that may fail.
        verdict: Text file that says how it went.

    Raises:
        SystemExit: More slides failed; its message is for the user.
    """
    table = pd.read_parquet(slides)
    failed = table[table["status"].isin([FAILED, SKIPPED])]
    lines = [f"{row.slide_id}: {row.failed_stage}: {row.error}" for row in failed.itertuples()]
    summary = f"{len(failed)} of {len(table)} slides failed"
    if len(failed) / len(table) > max_failed_fraction:  # a product would miss 29 of 100 at 0.29
        listed = "\n  ".join(lines[:20])
        sys.exit(
            f"{summary}, more than max_failed_fraction {max_failed_fraction:g} allows:\n  {listed}\n"
            f"All others are done. See {slides}; mend the slides and start again, only they are redone. "
            "Where a file itself need not change (rights, a server that was away), add --forcerun tissue."
        )
    with atomic_path(Path(verdict)) as temporary:
        temporary.write_text("\n".join([summary, *lines, ""]), encoding="utf-8")
