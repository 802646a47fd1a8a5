"""The plan of a study: an experiment for every run, and the sheets of the images it reads."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import yaml

from karyon.cohort.plan import slides_of, write_if_changed
from karyon.io.schemas import load_schema
from karyon.io.splits import TEST, TRAIN, VALIDATION
from karyon.study.definition import as_study
from karyon.study.groups import read_images, training_images
from karyon.study.planned import FILE, PlannedRun, PlannedStudy
from karyon.study.runs import Run, all_runs, tested_groups
from karyon.training.experiment import read_yaml

# The sheets of a run.
TARGET, AUXILIARY = "target", "auxiliary"
STUDIES = Path("results", "studies")
VARIANT_COLUMNS = ["variant", "family", "train_groups", "series", "x_name", "x"]


def plan_study(content: object, source: str = "config") -> PlannedStudy:
    """Write the plan of a study, each file only where its content changed: what depends on others is kept.

    In ``results/studies/<name>/plan`` there are then ``plan.json``, ``study.yaml`` (what the user wrote),
    ``variants.tsv``, ``test/<group>.tsv`` and, for each run that trains, ``<run>/experiment.yaml`` with the
    sheets that it names.

    Args:
        content: The study as YAML has it.
        source: What messages call it, such as the file's name.

    Raises:
        KaryonError: The study, its base or its data has mistakes; the message lists all of one kind.
    """
    study = as_study(content, source)
    images = read_images(study.data)
    runs = all_runs(study, read_yaml(Path(study.base)), images, source)
    folder = STUDIES / study.name
    groups = tested_groups(study, images)
    for group in groups:
        tests = images[(images["group"] == group) & (images["role"] == TEST)]
        write_if_changed(folder / "plan" / "test" / f"{group}.tsv", _sheet(tests.assign(split=TEST)))
    parts = {run.case.name: _parts(run, images) for run in runs if run.seed == study.seeds[0]}
    planned = PlannedStudy(
        name=study.name,
        radius_um=study.radius_um,
        threads=study.threads,
        groups=tuple(groups),
        runs=tuple(_write_run(run, parts[run.case.name], folder) for run in runs),
    )
    variants = pd.DataFrame([asdict(run) for run in planned.runs])[VARIANT_COLUMNS].drop_duplicates("variant")
    write_if_changed(folder / "plan" / "variants.tsv", variants.to_csv(sep="\t", index=False))
    written = yaml.safe_dump({"study": content}, sort_keys=False, allow_unicode=True)
    write_if_changed(folder / "plan" / "study.yaml", written)
    write_if_changed(folder / FILE, planned.to_json())
    return planned


@dataclass(frozen=True)
class _Part:
    """One of a run's sheets: its text, the share of crops that are of it, and its files' fingerprint."""

    sheet: str
    weight: float
    fingerprint: str


def _write_run(run: Run, parts: dict[str, _Part], folder: Path) -> PlannedRun:
    case = run.case
    if run.settings:
        plan = folder / "plan" / run.name
        settings = dict(run.settings) | {"datasets": _write_datasets(parts, plan, folder / "stains")}
        if start := _start(run, folder):
            settings["start"] = start
        text = yaml.dump(settings, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
        write_if_changed(plan / "experiment.yaml", text)
    return PlannedRun(
        run=run.name,
        variant=case.name,
        family=case.family,
        seed=run.seed,
        train_groups="+".join([*case.target, *case.auxiliary]) if run.settings else "",
        series=case.series,
        x_name=case.x_name,
        x=None if math.isnan(case.x) else case.x,
        model=str(folder / "models" / run.name) if run.settings else run.model,
        parent=run.parent,
        trains=bool(run.settings),
    )


def _start(run: Run, folder: Path) -> dict[str, object] | None:
    """What the run is fine-tuned from: a model by name, or one of this study by folder."""
    variant = run.case.variant
    if not variant.start:
        return None
    model = run.model
    if run.parent and variant.start_step:
        model = str(folder / "runs" / run.parent / "snapshots" / str(variant.start_step))
    elif run.parent:
        model = str(folder / "models" / run.parent)
    return {"model": model, "freeze": variant.freeze}


def _parts(run: Run, images: pd.DataFrame) -> dict[str, _Part]:
    """What a run reads, which its seed does not change."""
    variant = run.case.variant
    target = training_images(images, run.case.target, variant.target_share, variant.target_images)
    validation = images[images["group"].isin(run.case.target) & (images["role"] == VALIDATION)]
    auxiliary = training_images(images, run.case.auxiliary, variant.auxiliary_share)
    tables = {TARGET: pd.concat([target.assign(split=TRAIN), validation.assign(split=VALIDATION)])}
    weights = {TARGET: float(len(target)), AUXILIARY: float(len(auxiliary))}
    if not auxiliary.empty:
        tables[AUXILIARY] = auxiliary.assign(split=TRAIN)
        weights = {TARGET: variant.gamma, AUXILIARY: 1.0} if variant.gamma else weights
    return {name: _Part(_sheet(part), weights[name], fingerprint(part)) for name, part in tables.items()}


def _write_datasets(parts: dict[str, _Part], plan: Path, stains: Path) -> list[dict[str, object]]:
    """The run's sheets, and how the experiment names them."""
    datasets = []
    for name, part in parts.items():
        write_if_changed(plan / f"{name}.tsv", part.sheet)
        datasets.append(
            {
                "sheet": str(plan / f"{name}.tsv"),
                "train_splits": [TRAIN],
                "validation_splits": [VALIDATION] if name == TARGET else [],
                "weight": part.weight,
                "stain_cache": str(stains),
                "fingerprint": part.fingerprint,
            }
        )
    return datasets


def _sheet(images: pd.DataFrame) -> str:
    """A dataset sheet with absolute paths."""
    return images[list(load_schema("cohort")["properties"])].to_csv(sep="\t", index=False)


def fingerprint(images: pd.DataFrame) -> str:
    """Of a sheet's rows and of size and time of their files, 16 hexadecimal digits."""
    facts = json.dumps([asdict(row) for row in slides_of(images)])
    return hashlib.sha256(facts.encode()).hexdigest()[:16]
