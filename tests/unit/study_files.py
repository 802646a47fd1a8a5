"""Small studies for tests: empty images with points, in sheets of two organs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

EXPERIMENT = {
    "name": "base",
    "datasets": [{"sheet": "", "train_splits": ["train"], "validation_splits": ["validation"]}],
    "mpp": 0.5,
    "input": "RGB",
    "architecture": "unet",
    "arguments": {"width": 2, "depth": 1},
    "target": "shrunken_mask",
    "loss": "switching",
    "loss_arguments": {"weight": 0.7},
    "decoding": "components",
    "steps": 9,
    "batch": 2,
    "crop_px": 32,
    "optimiser": {"name": "adam", "learning_rate": 0.01},
    "schedule": {"name": "constant"},
    "validate_every": 9,
    "licence": "",
}


def write_images(folder: Path, groups: dict[str, int]) -> Path:
    """A sheet with so many images of each organ, each of a patient of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for organ, count in groups.items():
        for number in range(count):
            name = f"{organ.replace(' ', '_')}{number}"
            Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(folder / f"{name}.png")
            (folder / f"{name}.csv").write_text("x,y\n3,3\n")
            rows.append([name, f"{name}.png", "0.5", organ, f"patient-{name}", f"{name}.csv", "points_csv"])
    header = ["slide_id", "path", "mpp", "organ", "patient", "annotations", "annotation_format"]
    sheet = folder / "images.tsv"
    sheet.write_text("\n".join("\t".join(row) for row in [header, *rows]) + "\n")
    return sheet


def study(folder: Path, sheet: Path, **changes: Any) -> dict[str, Any]:
    """What stands below ``study``; its base is written to the folder."""
    (folder / "base.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    return {
        "name": "tiny",
        "data": {"sheets": [str(sheet)]},
        "base": str(folder / "base.yaml"),
        "settings": {"steps": 3, "validate_every": 3},
        "variants": {"unet": {"target": ["each"]}},
        "seeds": [1, 2],
        **changes,
    }
