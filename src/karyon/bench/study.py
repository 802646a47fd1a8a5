"""A large cross-organ study: what its dry run costs, and scoring its matrix from cached predictions."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from karyon.bench.measurement import Measurement
from karyon.bench.process import run_measured
from karyon.io.schemas import REPOSITORY
from karyon.study.planned import PlannedStudy, read_planned

IMAGES, NUCLEI, FIELD_UM = 25, 150, 125.0  # of a group's test; of an image of 500 x 500 px at 40x
NETWORKS = {
    "unet": {"architecture": "unet", "arguments": {"width": 8, "depth": 5}},
    "micronet": {"architecture": "micronet", "arguments": {"width": 4}},
    "frcn": {"architecture": "frcn", "arguments": {"width": 6}},
    "fcrn_a": {"architecture": "fcrn_a", "arguments": {"width": 10}},
    "fcn8s": {"architecture": "fcn8s", "arguments": {"width": 10}},
}
DRY_RUN = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", "--configfile", "study.yaml"]
SCORE = """
from karyon.study.score import score_matrix
plan = "results/studies/bench/plan/plan.json"
score_matrix(plan, 4.0, 2, "matrix.parquet", "curves.parquet", "provenance.json", "score.log")
"""


def measure_study(cache: Path, groups: int) -> Iterator[Measurement]:
    """CPU-seconds of the dry run, and of the scoring of one network and seed on all pairs of groups.

    Args:
        cache: Where the study lies: small files for its images, and drawn predictions.
        groups: Number of groups.
    """
    work = (cache / "study").resolve()
    shutil.rmtree(work, ignore_errors=True)
    _write_study(work, groups, NETWORKS, seeds=[1, 2, 3])
    dry = run_measured([*DRY_RUN, "--dry-run", "--quiet", "--", "matrix"], work)
    yield Measurement(
        name="study.dry_run",
        value=dry.seconds,
        unit=f"CPU-s of {groups} groups, {len(NETWORKS)} networks and 3 seeds",
        goal="value <= 10",
        met=dry.seconds <= 10,
    )
    _write_study(work, groups, {"unet": NETWORKS["unet"]}, seeds=[1])
    run_measured([*DRY_RUN, "--dry-run", "--quiet", "--", "matrix"], work)
    study = read_planned(work / "results" / "studies" / "bench")
    _draw_predictions(work, study)
    score = run_measured([sys.executable, "-c", SCORE], work)
    yield Measurement(
        name="study.score",
        value=score.seconds,
        unit=f"CPU-s to score {groups} models on {groups} groups of {IMAGES} images, {NUCLEI} nuclei each",
        goal="value <= 60",
        met=score.seconds <= 60,
    )


def _write_study(work: Path, groups: int, networks: dict[str, dict], seeds: list[int]) -> None:
    """A working directory with the workflow and a study of images that are not looked into."""
    work.mkdir(parents=True, exist_ok=True)
    for name in ("Snakefile", "workflow", "config", "profiles", "envs", "resources"):
        if not (work / name).exists():
            (work / name).symlink_to(REPOSITORY / name)
    lines = ["slide_id\tpath\tmpp\torgan\tannotations\tannotation_format"]
    for number in range(groups * 2 * IMAGES):
        image, points = work / f"image-{number}.png", work / f"image-{number}.csv"
        image.touch()
        points.touch()
        lines.append(f"{image.stem}\t{image}\t0.25\torgan-{number % groups:02d}\t{points}\tpoints_csv")
    (work / "images.tsv").write_text("\n".join([*lines, ""]))
    study = {
        "name": "bench",
        "data": {"sheets": ["images.tsv"]},
        "base": "config/experiments/switch_unet.yaml",
        "variants": {name: {"target": ["each"], "settings": settings} for name, settings in networks.items()},
        "seeds": seeds,
    }
    (work / "study.yaml").write_text(yaml.safe_dump({"study": study}))


def _draw_predictions(work: Path, study: PlannedStudy) -> None:
    """Annotations at random, and detections near most of them, of every model on every group."""
    generator = np.random.default_rng(1)
    folder = work / "results" / "studies" / study.name
    for run in study.runs:
        model = Path(work, run.model)
        shutil.copytree(REPOSITORY / "resources" / "models" / "switch_unet", model, dirs_exist_ok=True)
        rows = []
        for group in study.groups:
            images = pd.read_csv(folder / "plan" / "test" / f"{group}.tsv", sep="\t")["slide_id"]
            target = folder / "predictions" / run.run
            target.mkdir(parents=True, exist_ok=True)
            _draw_group(generator, list(images)).to_parquet(target / f"{group}.parquet", index=False)
            curve = {"image_id": images, "threshold": 0.5, "tp": 1, "fp": 1, "fn": 1}
            pd.DataFrame(curve).to_parquet(target / f"{group}.curve.parquet", index=False)
            rows.append({"group": group, "model_sha256": "0" * 64, "threshold": 0.35, "device": "CPU"})
        pd.DataFrame(rows).to_parquet(folder / "predictions" / f"{run.run}.parquet", index=False)


def _draw_group(generator: np.random.Generator, images: list[str]) -> pd.DataFrame:
    truth = generator.uniform(0, FIELD_UM, (len(images), NUCLEI, 2))
    found = truth + generator.normal(0, 1.0, truth.shape)
    tables = []
    for kind, points in (("found", found), ("true", truth)):
        x_um, y_um = points.reshape(-1, 2).T
        ids = np.repeat(images, NUCLEI)
        tables.append(pd.DataFrame({"image_id": ids, "kind": kind, "x_um": x_um, "y_um": y_um}))
    return pd.concat(tables, ignore_index=True)
