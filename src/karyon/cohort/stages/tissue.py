"""Stage `tissue`: slide facts, thumbnail and tissue mask."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from karyon.cohort.layout import SlideFiles
from karyon.cohort.plan import SlideRow
from karyon.cohort.shard import DONE, NO_TISSUE, SlideTask, StageResult
from karyon.errors import SlideError
from karyon.io.atomic import atomic_path
from karyon.io.slides import PatchedSlide, Slide, SlideFacts, open_slide
from karyon.tiles.grid import Grid
from karyon.tissue.mask import tissue_mask
from karyon.tissue.thumbnail import read_thumbnail


def mask_slide(task: SlideTask) -> StageResult:
    """Find the tissue of a slide and note its facts.

    Settings: ``method``, ``mpp`` and ``min_area_um2`` of the configuration's ``tissue``.
    """
    with PatchedSlide(open_planned(task.row)) as slide:
        thumbnail, grid = read_thumbnail(slide, task.settings["mpp"])
        facts, lost = slide.facts, slide.lost
    mpp = facts.mpp * grid.scale
    smallest = task.settings["min_area_um2"]
    try:
        mask = tissue_mask(thumbnail, mpp, task.settings["method"], smallest)
    except SlideError as error:
        raise SlideError(f"{task.row.path}: {error}") from error
    files = task.files
    _write_png(files.thumbnail, thumbnail)
    _write_png(files.tissue_mask, mask.astype(np.uint8) * 255)
    with atomic_path(files.facts) as temporary:
        temporary.write_text(json.dumps({"slide": asdict(facts), "mask_grid": asdict(grid)}, indent=1))
    area = float(mask.sum()) * (mpp / 1000) ** 2
    return StageResult(
        status=DONE if mask.any() else NO_TISSUE,
        warning="; ".join(_warnings(mask, lost, smallest)),
        facts={
            "width": facts.width,
            "height": facts.height,
            "mpp": facts.mpp,
            "mpp_source": facts.mpp_source,
            "levels": len(facts.level_sizes),
            "vendor": facts.vendor,
            "tissue_mm2": round(area, 6),
        },
        outputs=(files.thumbnail, files.tissue_mask, files.facts),
    )


def _warnings(mask: np.ndarray, lost: float, smallest: float) -> Iterator[str]:
    if lost:
        yield f"{lost:.2%} of the slide could not be decoded and counts as glass"
    if not mask.any():
        yield f"no tissue: the slide is blank, or no piece on it reaches {smallest:g} square microns"


@dataclass(frozen=True)
class TissueFiles:
    """What the stage left of a slide.

    Attributes:
        facts: Slide facts.
        mask: bool, ``(h, w)``.
        mask_grid: Its grid.
    """

    facts: SlideFacts
    mask: np.ndarray
    mask_grid: Grid

    @classmethod
    def read(cls, files: SlideFiles) -> TissueFiles:
        """Read them back."""
        content = json.loads(files.facts.read_text())
        slide = content["slide"]
        slide["level_sizes"] = tuple(tuple(size) for size in slide["level_sizes"])
        mask = np.asarray(Image.open(files.tissue_mask)) > 0
        return cls(SlideFacts(**slide), mask, Grid(**content["mask_grid"]))


def open_planned(row: SlideRow) -> Slide:
    """Open a slide of the plan; an mpp of 0 there means that the sheet gives none."""
    return open_slide(row.path, row.mpp or None)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    encoded = io.BytesIO()  # Pillow's own writing to a file loses the reason, such as a full disk
    Image.fromarray(pixels).save(encoded, format="PNG")
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())
