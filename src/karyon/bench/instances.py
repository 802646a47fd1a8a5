"""From the maps of a model of outlines to the table of nuclei; outlines and shapes against scikit-image."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import zarr
from skimage.measure import find_contours, regionprops, regionprops_table

from karyon.bench.material import MODEL_MPP
from karyon.bench.measurement import Measurement, fastest
from karyon.bench.memory import process_peak_mb
from karyon.bench.predictions import draw_nuclei, paint_window
from karyon.io.slides import SlideFacts
from karyon.models.card import Decoding, ModelCard
from karyon.nuclei.components import BLOCK_PX
from karyon.nuclei.instances import Window, decode_instances, label_map, shown_background
from karyon.nuclei.morphology import find_boxes, measure_shapes
from karyon.nuclei.outline_table import write_outlines
from karyon.nuclei.polygons import trace_outlines
from karyon.nuclei.shapes import Shapes, measure_window
from karyon.nuclei.staining import ring_px
from karyon.stain.concentrations import concentrations
from karyon.stain.fit import STAINS, reference_matrix
from karyon.tiles.grid import Grid
from karyon.tiles.store import create_array, create_store, open_store

# For the whole of a map of 40,000 x 40,000 with a million nuclei, on two cores.
GOAL_SECONDS, GOAL_SIDE, GOAL_MB = 180.0, 40_000, 2000.0
GOAL_TIMES = 8.0
THRESHOLD = 128
CHUNK_PX = 1024
# The distance map falls from the centre in steps: discs of these shares of the nucleus' radius, overlaid.
STEPS = (0.25, 0.5, 0.75)
LIGHT, DARK = 220, 90
CARD = ModelCard(
    name="drawn",
    architecture="unet",
    arguments={},
    input="H-C",
    mpp=MODEL_MPP,
    halo_px=0,
    stride=1,
    output="probability",
    decoding=Decoding("watershed", threshold=THRESHOLD / 255, marker_threshold=0.5),
    maps=("nucleus", "distance"),
)
# What both sides measure, by the names of each.
PROPERTIES = {
    "area": "area",
    "perimeter": "perimeter",
    "major": "axis_major_length",
    "minor": "axis_minor_length",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
    "orientation": "orientation",
}


def measure_instances(cache: Path, side: int) -> Iterator[Measurement]:
    """The table of a map of ``side``, in a process of its own, and the shapes of one of its blocks.

    Args:
        cache: Where results lie; the maps are drawn once.
        side: Of the map in pixels.
    """
    yield compare_shapes(min(BLOCK_PX, side))  # first, so that nothing is compiled in what follows
    folder = cache / "instances"
    maps, table = folder / f"maps-{side}.zarr.zip", folder / f"nuclei-{side}.parquet"
    if not maps.exists():
        write_maps(maps, side)
    start = time.perf_counter()
    peak = process_peak_mb(outline_map, maps, table)
    seconds = time.perf_counter() - start
    limit, number = GOAL_SECONDS * (side / GOAL_SIDE) ** 2, pq.read_metadata(table).num_rows
    yield Measurement(
        name="instances.time",
        value=seconds,
        unit=f"s to decode, outline, measure and write {number:,} nuclei on {side} x {side}",
        goal=f"<= {limit:.3g} s",
        met=seconds <= limit,
    )
    yield Measurement(
        name="instances.memory",
        value=peak,
        unit="MB at the peak",
        goal=f"<= {GOAL_MB:g} MB",
        met=peak <= GOAL_MB,
    )


def write_maps(path: Path, side: int) -> None:
    """Draw the two maps of a square slide.

    Args:
        path: ``*.zarr.zip``.
        side: In pixels.
    """
    nuclei = draw_nuclei(side)
    with create_store(path, {}) as store:
        maps = create_array(store, "map", (2, side, side), (1, CHUNK_PX, CHUNK_PX))
        for top in range(0, side, CHUNK_PX):
            for left in range(0, side, CHUNK_PX):
                height, width = min(CHUNK_PX, side - top), min(CHUNK_PX, side - left)
                maps[:, top : top + height, left : left + width] = _paint(nuclei, top, left, height, width)


def _paint(nuclei: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Maps of a window, uint8, ``(2, height, width)``."""
    steps = [
        paint_window((nuclei * (1, 1, share)).astype(np.float32), top, left, height, width) for share in STEPS
    ]
    distance = np.mean(steps, axis=0).astype(np.uint8)
    return np.stack([paint_window(nuclei, top, left, height, width), distance])


def outline_map(maps: Path, table: Path) -> None:
    """What stage `nuclei` does with a map, but for reading the slide: two shades stand in for its pixels.

    Args:
        maps: From :func:`write_maps`.
        table: Where the table goes.
    """
    with open_store(maps) as store:
        stack: zarr.Array = store["map"]  # type: ignore[assignment]
        side = stack.shape[1]
        shapes = [
            _measure(stack, window) for window in decode_instances(stack, CARD.decoding, CARD.maps, MODEL_MPP)
        ]
    facts = SlideFacts(side, side, MODEL_MPP, "sheet", ((side, side),), 0, 0, "synthetic")
    write_outlines(table, "drawn", shapes, Grid(side, side, 1.0, 0, 1.0), facts, CARD, STAINS["HE"], "")


def _measure(stack: zarr.Array, window: Window) -> Shapes:
    background = shown_background(stack, CARD.decoding, CARD.maps, MODEL_MPP, window, ring_px(MODEL_MPP))
    shade = np.where(background, LIGHT, DARK).astype(np.uint8)
    densities = concentrations(
        np.repeat(shade[..., None], 3, axis=-1), reference_matrix("HE"), np.full(3, 255.0)
    )
    crop = np.asarray(stack[:, *window.slices])
    return measure_window(window.labels, window.x, window.y, crop, CARD.maps, densities, background)


def compare_shapes(side: int) -> Measurement:
    """Outlines and shapes of the nuclei of a map in memory, against scikit-image.

    Args:
        side: Of the map in pixels.

    Raises:
        AssertionError: The two do not find the same.
    """
    labels = label_map(_paint(draw_nuclei(side), 0, 0, side, side), CARD.decoding, CARD.maps, MODEL_MPP)
    value = fastest(lambda: _ours(labels))
    start = time.perf_counter()
    expected = _theirs(labels)
    peer = time.perf_counter() - start
    found = _ours(labels)
    for name, theirs in PROPERTIES.items():
        np.testing.assert_allclose(
            _undirected(name, found[name]), _undirected(name, expected[theirs]), atol=1e-6
        )
    return Measurement(
        name="instances.shapes",
        value=value,
        unit=f"s for outlines and shapes of {len(found):,} nuclei on {side} x {side}",
        peer=f"skimage find_contours of each and regionprops_table ({', '.join(PROPERTIES.values())})",
        peer_value=peer,
        ratio=peer / value,
        goal=f"ratio >= {GOAL_TIMES:g}",
        met=peer / value >= GOAL_TIMES,
    )


def _undirected(name: str, values: np.ndarray) -> np.ndarray:
    """Angles by their sine's size: a line points both ways."""
    return np.abs(np.sin(values)) if name == "orientation" else values


def _ours(labels: np.ndarray) -> np.ndarray:
    trace_outlines(labels, 0, 0).polygons(1.0)
    return measure_shapes(labels, find_boxes(labels), 0, 0)[[*PROPERTIES]]


def _theirs(labels: np.ndarray) -> dict[str, np.ndarray]:
    for region in regionprops(labels):
        find_contours(np.pad(region.image, 1), 0.5)
    return regionprops_table(labels, properties=tuple(PROPERTIES.values()))
