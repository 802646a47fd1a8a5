"""Where the figures of a study come from: code, packages, machine, data and models."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from karyon.io.schemas import REPOSITORY
from karyon.io.sheets import read_sheet
from karyon.models.card import file_sha256, model_folder, read_card
from karyon.study.plan import fingerprint
from karyon.study.planned import PlannedRun, PlannedStudy
from karyon.training.experiment import expand_data

PACKAGES = ("karyon", "torch", "numpy", "scipy", "pandas", "spams-bin", "openslide-python", "snakemake")


def provenance(study: PlannedStudy, folder: Path) -> dict[str, Any]:
    """What the results of a study were made of.

    Args:
        study: With its models trained.
        folder: Its folder, with the plan.

    Returns:
        ``packages``; ``commit`` ('' outside a repository); ``lock``, the sha256 of the pins; ``hardware``;
        ``seeds``; ``study``, what the user wrote; ``data``, of each sheet its sha256 and a fingerprint of the
        size and time of its files; ``runs``, seconds of training, sha256 of weights and device of each.
    """
    written = yaml.safe_load((folder / "plan" / "study.yaml").read_text(encoding="utf-8"))["study"]
    sheets = [expand_data(sheet) for sheet in written["data"]["sheets"]]
    return {
        "packages": {name: version(name) for name in PACKAGES},
        "commit": _commit(),
        "lock": file_sha256(REPOSITORY / "constraints.txt"),
        "hardware": {"machine": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
        "seeds": sorted({run.seed for run in study.runs}),
        "study": written,
        "data": [_data(sheet) for sheet in sheets],
        "runs": [_facts(run, folder) for run in study.runs],
    }


def _facts(run: PlannedRun, folder: Path) -> dict[str, Any]:
    card = read_card(model_folder(run.model))
    manifest = pd.read_parquet(folder / "predictions" / f"{run.run}.parquet", columns=["device"])
    return {
        "run": run.run,
        "variant": run.variant,
        "seed": run.seed,
        "seconds": card.training.get("seconds") if run.trains else None,
        "model_sha256": card.sha256,
        "device": manifest["device"].iloc[0],
    }


def _data(sheet: Path) -> dict[str, Any]:
    images = read_sheet(sheet)
    facts = {"images": len(images), "files": fingerprint(images)}
    return {"sheet": str(sheet), "sha256": file_sha256(sheet), **facts}


def _commit() -> str:
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 (no input in it)
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    """Name of the processor, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
