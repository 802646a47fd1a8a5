"""Stage `nuclei` of a model that draws outlines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import zarr

from karyon.cohort.shard import SlideTask
from karyon.cohort.stages.stain import read_fit
from karyon.cohort.stages.tissue import open_planned
from karyon.io.slides import PatchedSlide, Slide, SlideFacts
from karyon.models.card import Decoding, ModelCard
from karyon.nuclei.export import write_mask
from karyon.nuclei.instances import Window, decode_instances, shown_background
from karyon.nuclei.outline_table import write_outlines
from karyon.nuclei.shapes import Shapes, measure_window
from karyon.nuclei.staining import ring_px
from karyon.stain.concentrations import concentrations
from karyon.stain.fit import StainFit
from karyon.tiles.grid import Grid, read_window
from karyon.tiles.store import open_store


def find_outlines(task: SlideTask, card: ModelCard, decoding: Decoding, facts: SlideFacts) -> int:
    """Decode a slide's maps, measure the nuclei window by window, and write their table.

    Args:
        task: The slide; with ``mask`` in its settings what is nucleus is written as well.
        card: The model.
        decoding: How its maps are read.
        facts: The slide.

    Returns:
        How many nuclei.
    """
    files, fit = task.files, read_fit(task.files)
    shapes: list[Shapes] = []
    with ExitStack() as stack:
        store = stack.enter_context(open_store(files.map))
        maps: zarr.Array = store["map"]  # type: ignore[assignment]
        grid = Grid(**store.attrs.asdict()["grid"])  # type: ignore[arg-type]
        # What of the slide cannot be decoded was told when tiles were read.
        slide = stack.enter_context(PatchedSlide(open_planned(task.row), limit=1.0))
        canvas = stack.enter_context(_canvas(files.nuclei, maps.shape[1:])) if task.settings["mask"] else None
        for window in decode_instances(maps, decoding, card.maps, card.mpp):
            shapes.append(_measure(window, maps, card, decoding, slide, grid, fit))
            if canvas is not None:
                canvas[window.slices] |= window.labels > 0
        if canvas is not None:
            write_mask(files.nuclei_mask, canvas, 1, grid, facts.mpp)
    return write_outlines(
        files.nuclei, task.row.slide_id, shapes, grid, facts, card, fit.columns, task.fingerprint
    )


def _measure(
    window: Window,
    maps: zarr.Array,
    card: ModelCard,
    decoding: Decoding,
    slide: Slide,
    grid: Grid,
    fit: StainFit,
) -> Shapes:
    """Shapes and staining of a window's nuclei."""
    margin = ring_px(card.mpp)
    height, width = (side + 2 * margin for side in window.labels.shape)
    x, y = window.x - margin, window.y - margin
    rgb = read_window(slide, grid, x, y, width, height)
    return measure_window(
        window.labels,
        window.x,
        window.y,
        np.asarray(maps[:, *window.slices]),
        card.maps,
        concentrations(rgb, fit.stain_matrix, fit.i0),
        shown_background(maps, decoding, card.maps, card.mpp, window, margin),
    )


@contextmanager
def _canvas(beside: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """An image of zeros on disk, which takes space only where it is written, and is gone in the end."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=beside.parent) as file:
        file.truncate(int(np.prod(shape)))
        yield np.memmap(file, np.uint8, "r+", shape=shape)
