"""Training by the workflow, and slides through the model that it made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from conftest import SETTINGS, new_workflow
from PIL import Image

from karyon.models.card import read_card


def tiny_experiment(slides: pd.DataFrame, folder: Path) -> dict:
    """Trains on the first slide; the second chooses the decoding."""
    rows = slides.iloc[:2].assign(split=["train", "val"], patient=["a", "b"])
    rows.to_csv(folder / "fields.tsv", sep="\t", index=False)
    return {
        "name": "tiny",
        "datasets": [
            {"sheet": str(folder / "fields.tsv"), "train_splits": ["train"], "validation_splits": ["val"]}
        ],
        "mpp": 0.5,
        "input": "H-C",
        "architecture": "unet",
        "arguments": {"width": 4, "depth": 2},
        "target": "shrunken_mask",
        "loss": "switching",
        "decoding": "components",
        "steps": 100,
        "batch": 2,
        "crop_px": 96,
        "optimiser": {"name": "adamw", "learning_rate": 0.01},
        "schedule": {"name": "onecycle"},
        "ema": 0.9,
        "validate_every": 100,
        "licence": "",
    }


def test_a_model_is_trained_and_finds_nuclei_on_slides(sheet: pd.DataFrame, tmp_path: Path) -> None:
    workflow = new_workflow(tmp_path / "work")
    experiment = workflow.folder / "config" / "experiments" / "tiny.yaml"
    experiment.write_text(yaml.safe_dump(tiny_experiment(sheet, tmp_path)))
    trained = workflow.run("--config", "experiments=tiny", settings={})
    assert trained.returncode == 0, trained.stdout + trained.stderr
    model = workflow.folder / "results" / "models" / "tiny"
    assert read_card(model).metrics["validation"]["f1"] > 0.5  # type: ignore[index]
    assert np.asarray(Image.open(model / "curves.png")).std() > 0
    assert "tiny, step 0: random weights" in (model / "train.log").read_text()
    assert workflow.planned("--config", "experiments=tiny", settings={}) == []

    workflow.write_sheet(sheet.iloc[2:])
    found = workflow.run(settings={**SETTINGS, "model": "results/models/tiny"})
    assert found.returncode == 0, found.stdout + found.stderr
    slides = pd.read_parquet(workflow.folder / "results" / "tiny" / "slides.parquet")
    assert slides["nuclei"].iloc[0] > 50


def test_an_experiment_that_is_not_there_is_named(tmp_path: Path) -> None:
    workflow = new_workflow(tmp_path / "work")
    result = workflow.run("--config", "experiments=micronett", settings={})
    assert result.returncode != 0
    assert "there is no config/experiments/micronett.yaml (did you mean 'micronet'?)" in result.stderr
    assert "Traceback" not in result.stderr
