"""Stage `nuclei`: from the slide-level map to the table of nuclei."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import zarr

from karyon.cohort.shard import SlideTask, StageResult
from karyon.cohort.stages.outlines import find_outlines
from karyon.cohort.stages.tissue import TissueFiles
from karyon.io.slides import SlideFacts
from karyon.models.card import Decoding, ModelCard, model_folder, read_card
from karyon.nuclei.decode import decode, map_threshold
from karyon.nuclei.export import write_csv, write_geojson, write_mask
from karyon.nuclei.instances import METHODS
from karyon.nuclei.table import nuclei_table, write_nuclei
from karyon.tiles.grid import Grid
from karyon.tiles.store import open_store


def find_nuclei(task: SlideTask) -> StageResult:
    """Decode a slide's maps and write its table, and what else is configured.

    Settings: the configuration's ``nuclei``, name or folder of the model, and its card's ``decoding``.
    """
    settings, files = task.settings, task.files
    card = read_card(model_folder(settings["model"]))
    decoding = Decoding(**settings["decoding"])
    if settings["threshold"] is not None:
        decoding = replace(decoding, threshold=settings["threshold"])
    tissue = TissueFiles.read(files)
    facts = tissue.facts
    find = find_outlines if decoding.method in METHODS else _find_points
    number = find(task, card, decoding, facts)
    outputs = [files.nuclei, *([files.nuclei_mask] if settings["mask"] else [])]
    if settings["csv"]:
        write_csv(files.nuclei_csv, files.nuclei)
        outputs.append(files.nuclei_csv)
    if settings["geojson"]:
        write_geojson(files.nuclei_geojson, files.nuclei)
        outputs.append(files.nuclei_geojson)
    area = float(tissue.mask.sum()) * (facts.mpp * tissue.mask_grid.scale / 1000) ** 2
    return StageResult(
        facts={
            "nuclei": number,
            "nuclei_per_mm2": round(number / area, 2),
            "threshold": decoding.threshold,
        },
        outputs=tuple(outputs),
    )


def _find_points(task: SlideTask, card: ModelCard, decoding: Decoding, facts: SlideFacts) -> int:
    """Decode a map of centres and write the table, and the mask where it is wanted; how many nuclei."""
    files = task.files
    with open_store(files.map) as store:
        values: zarr.Array = store["map"]  # type: ignore[assignment]
        grid = Grid(**store.attrs.asdict()["grid"])  # type: ignore[arg-type]
        maximum = int(np.asarray(store["maximum"])[0])
        found = decode(values, decoding, maximum, card.mpp)
        if task.settings["mask"]:
            write_mask(files.nuclei_mask, values, map_threshold(decoding, maximum), grid, facts.mpp)
    table = nuclei_table(task.row.slide_id, found, grid, facts)
    write_nuclei(files.nuclei, table, facts, card, task.fingerprint)
    return len(table)
