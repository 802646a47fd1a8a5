"""A study of tiny networks on synthetic fields, for the workflow on one machine and on a cluster."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml

from karyon.demo.cohort import render_cohort
from karyon.io.sheets import read_sheet
from workdir import Workflow, new_workflow

ORGANS = ("breast", "kidney", "lung")
EXPERIMENT = {
    "name": "base",
    "datasets": [{"sheet": "", "train_splits": ["train"], "validation_splits": ["validation"]}],
    "mpp": 0.5,
    "input": "H-C",
    "architecture": "unet",
    "arguments": {"width": 2, "depth": 2},
    "target": "shrunken_mask",
    "loss": "switching",
    "decoding": "components",
    "steps": 30,
    "batch": 2,
    "crop_px": 64,
    "optimiser": {"name": "adamw", "learning_rate": 0.01},
    "schedule": {"name": "onecycle"},
    "ema": 0.9,
    "validate_every": 10,
    "licence": "",
}


def render_fields(folder: Path) -> pd.DataFrame:
    """Three fields of each of three organs."""
    rows = read_sheet(render_cohort(folder, slides=9, width=300, height=256, mpp=0.5, seed=5))
    return rows.assign(organ=[ORGANS[number // 3] for number in range(9)], patient=rows["slide_id"], mpp=0.5)


def new_study(folder: Path, fields: pd.DataFrame, organs: int) -> Workflow:
    """A working directory with a study of the first organs."""
    workflow = new_workflow(folder)
    fields[fields["organ"].isin(ORGANS[:organs])].to_csv(folder / "fields.tsv", sep="\t", index=False)
    (folder / "base.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    study = {
        "name": "tiny",
        "data": {"sheets": ["fields.tsv"]},
        "base": "base.yaml",
        "variants": {"unet": {"target": ["each"]}},
    }
    workflow.write_settings({"study": study})
    return workflow
