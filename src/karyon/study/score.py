"""The matrix of a study: every model on every test image, from what was predicted before."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from karyon.io.atomic import atomic_path
from karyon.io.job import job_log
from karyon.study.planned import PlannedRun, read_planned
from karyon.study.predict import score_points
from karyon.study.provenance import provenance

MATRIX_COLUMNS = (
    "family",
    "variant",
    "train_groups",
    "test_group",
    "seed",
    "image_id",
    "patient",
    "tp",
    "fp",
    "fn",
    "precision",
    "recall",
    "f1",
    "distance_um",
    "distance_sd_um",
    "threshold",
    "model_sha256",
)


def score_matrix(
    plan: str, radius_um: float, threads: int, matrix: str, curves: str, origin: str, log: str
) -> None:
    """Match the detections of all models with the annotations, image by image.

    Args:
        plan: The study's ``plan/plan.json``; the models' predictions lie beside ``plan/``.
        radius_um: Detections at most this far from an annotation may match it.
        threads: CPU threads.
        matrix: Gets a row per run and test image, with ``MATRIX_COLUMNS``.
        curves: Gets ``variant, test_group, seed, threshold, tp, fp, fn``: a group's images together.
        origin: Gets :func:`karyon.study.provenance.provenance`, as JSON.
        log: File for what is said.
    """
    folder = Path(plan).parents[1]
    study = read_planned(folder)
    tests = {group: _read_test(folder, group) for group in study.groups}
    cells = [(run, group) for run in study.runs for group in study.groups]
    with job_log(log, "score"), ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        rows = list(pool.map(lambda cell: _score_cell(folder, cell[0], cell[1], tests, radius_um), cells))
        table = pd.DataFrame([row for cell in rows for row in cell], columns=list(MATRIX_COLUMNS))
        pooled = pd.concat([_curve(folder, *cell) for cell in cells], ignore_index=True)
        for path, frame in ((matrix, table), (curves, pooled)):
            with atomic_path(Path(path)) as temporary:
                frame.to_parquet(temporary, index=False)
        with atomic_path(Path(origin)) as temporary:
            temporary.write_text(json.dumps(provenance(study, folder), indent=1), encoding="utf-8")
        seconds = time.perf_counter() - start
        print(f"{len(cells)} cells, {len(table)} images in {seconds:.1f} s", file=sys.stderr)


def _read_test(folder: Path, group: str) -> list[tuple[str, str]]:
    """Image and patient of each row of a group's test sheet, by image."""
    sheet = pd.read_csv(folder / "plan" / "test" / f"{group}.tsv", sep="\t", dtype=str, keep_default_na=False)
    return sorted(zip(sheet["slide_id"], sheet["patient"], strict=True))


def _score_cell(
    folder: Path, run: PlannedRun, group: str, tests: dict[str, list[tuple[str, str]]], radius_um: float
) -> list[dict[str, object]]:
    """One row per image of a group."""
    manifest = pd.read_parquet(folder / "predictions" / f"{run.run}.parquet").set_index("group").loc[group]
    points = pd.read_parquet(folder / "predictions" / run.run / f"{group}.parquet")
    found, true = (_by_image(points[points["kind"] == kind]) for kind in ("found", "true"))
    none, rows = np.empty((0, 2)), []
    for image, patient in tests[group]:
        score = score_points(found.get(image, none), true.get(image, none), radius_um)
        values = (
            *(run.family, run.variant, run.train_groups, group, run.seed, image, patient),
            *(score.tp, score.fp, score.fn, score.precision, score.recall, score.f1),
            *(score.distance_mean, score.distance_sd, manifest["threshold"], manifest["model_sha256"]),
        )
        rows.append(dict(zip(MATRIX_COLUMNS, values, strict=True)))
    return rows


def _by_image(points: pd.DataFrame) -> dict[str, np.ndarray]:
    return {str(image): part[["x_um", "y_um"]].to_numpy() for image, part in points.groupby("image_id")}


def _curve(folder: Path, run: PlannedRun, group: str) -> pd.DataFrame:
    curve = pd.read_parquet(folder / "predictions" / run.run / f"{group}.curve.parquet")
    counts = curve.groupby("threshold", as_index=False)[["tp", "fp", "fn"]].sum()
    return counts.assign(variant=run.variant, test_group=group, seed=run.seed)[
        ["variant", "test_group", "seed", "threshold", "tp", "fp", "fn"]
    ]
