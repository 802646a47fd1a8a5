"""One row per slide for the whole cohort, and its pooled scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from karyon.cohort.shard import DONE, FAILED, NO_TISSUE, SKIPPED, explain_full_disk
from karyon.errors import KaryonError
from karyon.evaluation.detection import DetectionScore
from karyon.io.atomic import atomic_path

STAGES = ("tissue", "stain", "infer", "stitch", "nuclei", "evaluate")
COMMON = ("slide_id", "status", "error", "warning", "seconds", "fingerprint")
GROUPINGS = ("organ", "stain", "split", "label_quality")


def summarise(
    plans: Sequence[str], manifests: Sequence[str], radii_um: Sequence[float], slides: str, scores: str
) -> None:
    """Write the cohort's slide table and score table.

    Args:
        plans: The shards' TSVs.
        manifests: All manifests of all stages.
        radii_um: Match radii in microns.
        slides: ``results/<cohort>/slides.parquet``.
        scores: ``results/<cohort>/scores.parquet``.
    """
    table = slide_table(plans, manifests)
    for path, frame in ((slides, table), (scores, score_table(table, radii_um))):
        with explain_full_disk("summary", Path(path).parent), atomic_path(Path(path)) as temporary:
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


def score_table(slides: pd.DataFrame, radii_um: Sequence[float]) -> pd.DataFrame:
    """Pooled precision, recall, F1 and distance: over all slides, and within each group.

    Args:
        slides: From :func:`slide_table`.
        radii_um: Match radii in microns.

    Returns:
        Columns ``grouping, group, radius_um, slides, annotated, tp, fp, fn, precision, recall, f1,
        distance_mean_um, distance_sd_um, mean_slide_f1``; empty where no slide is annotated.
    """
    rows = []
    annotated = slides[slides["annotated"].notna()] if "annotated" in slides else slides.iloc[:0]
    groups = [("all", "all", annotated)] if len(annotated) else []
    for grouping in GROUPINGS:
        groups += [(grouping, str(name), part) for name, part in annotated.groupby(grouping) if name]
    for grouping, group, part in groups:
        for radius in radii_um:
            each = [_score(row, radius) for row in part.to_dict("records")]
            total = sum(each, DetectionScore(0, 0, 0))
            rows.append(
                {
                    "grouping": grouping,
                    "group": group,
                    "radius_um": float(radius),
                    "slides": len(part),
                    "annotated": int(part["annotated"].sum()),
                    "tp": total.tp,
                    "fp": total.fp,
                    "fn": total.fn,
                    "precision": total.precision,
                    "recall": total.recall,
                    "f1": total.f1,
                    "distance_mean_um": total.distance_mean,
                    "distance_sd_um": total.distance_sd,
                    "mean_slide_f1": pd.Series([score.f1 for score in each]).mean(),
                }
            )
    return pd.DataFrame(rows)


def _score(row: dict, radius: float) -> DetectionScore:
    names = ("tp", "fp", "fn", "distance_sum", "distance_square_sum")
    tp, fp, fn, total, squares = (row[f"{name}_{radius:g}um"] for name in names)
    return DetectionScore(int(tp), int(fp), int(fn), float(total), float(squares))


def check_failures(slides: str, max_failed_fraction: float, verdict: str) -> None:
    """Turn too many failed slides into an error, after everything else is written.

    Args:
        slides: The cohort's slide table.
        max_failed_fraction: Share of slides that may fail.
        verdict: Text file that says how it went.

    Raises:
        KaryonError: More slides failed.
    """
    table = pd.read_parquet(slides)
    failed = table[table["status"].isin([FAILED, SKIPPED])]
    lines = [f"{row.slide_id}: {row.failed_stage}: {row.error}" for row in failed.itertuples()]
    summary = f"{len(failed)} of {len(table)} slides failed"
    if len(failed) / len(table) > max_failed_fraction:  # a product would miss 29 of 100 at 0.29
        listed = "\n  ".join(lines[:20])
        raise KaryonError(
            f"{summary}, more than max_failed_fraction {max_failed_fraction:g} allows:\n  {listed}\n"
            f"All others are done. See {slides}; mend the slides and start again, only they are redone. "
            "Where a file itself need not change (rights, a server that was away), add --forcerun tissue."
        )
    with atomic_path(Path(verdict)) as temporary:
        temporary.write_text("\n".join([summary, *lines, ""]), encoding="utf-8")
