"""What the edges of patches cost: wrong pixels near them, for patches alone, blended and with a halo."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from karyon.bench.chain import THREADS
from karyon.bench.measurement import Measurement
from karyon.cohort.figures import PALETTE
from karyon.inference.predict import Predictor, input_layer
from karyon.io.atomic import atomic_path
from karyon.io.sheets import read_sheet
from karyon.io.slides import Slide, open_slide
from karyon.models.card import ModelCard, model_folder
from karyon.models.folding import fold_batch_norm
from karyon.models.weights import load_model
from karyon.nuclei.decode import map_level
from karyon.tiles.assembly import assemble
from karyon.tiles.grid import Grid, read_window
from karyon.tiles.layout import TileLayout
from karyon.training.data import read_annotation
from karyon.training.experiment import expand_data
from karyon.training.stains import image_stains
from karyon.training.targets import instance_map

MODEL = "karyon_outline"
SHEET, SPLITS = "$KARYON_DATA/kumar30/kumar30.tsv", ("TeD1", "TeD2")
# NB's patches, and how far apart they are where they overlap (section III-B).
PATCH_PX, STRIDE_PX = 128, 64
NEAR_PX = 4
GOAL_STEPS = 1
ALONE, BLENDED, HALO, WHOLE = "side by side", "blended", "with a halo", "the whole image at once"


@dataclass(frozen=True)
class Way:
    """A way of predicting an image in pieces.

    Attributes:
        core: Side of a piece without its halo, in model pixels.
        halo: Its halo.
        method: How :func:`karyon.tiles.assembly.assemble` joins the pieces.
    """

    core: int
    halo: int
    method: str

    def distance(self, height: int, width: int) -> np.ndarray:
        """Pixels between each pixel and the nearest edge of a piece, 0 beside it, int64, ``(h, w)``.

        Edges are where blended pieces end, halo included, and where the cores of others meet.
        """
        shift = self.halo if self.method == "weighted" else 0
        down, across = ((np.arange(side) + shift) % self.core for side in (height, width))
        down, across = (np.minimum(place, self.core - 1 - place) for place in (down, across))
        return np.minimum(down[:, None], across[None, :])


def measure_seam(cache: Path, images: int) -> Iterator[Measurement]:
    """Wrong pixels near edges, beside the same pixels of the whole image predicted at once.

    Args:
        cache: Gets ``seam.csv``, the figures at every distance, and ``seam.png``.
        images: How many of kumar30's test images.
    """
    sheet = expand_data(SHEET)
    if not sheet.is_file():
        print(f"seam: skipped, for it needs annotated images and there is no {sheet}", file=sys.stderr)
        return
    rows = read_sheet(sheet)
    table, difference = count_wrong(MODEL, rows[rows["split"].isin(SPLITS)].head(images))
    with atomic_path(cache / "seam.csv") as temporary:
        table.to_csv(temporary, index=False)
    with atomic_path(cache / "seam.png") as temporary:
        draw_seam(table).savefig(temporary, dpi=150)
    for name, way in (("alone", ALONE), ("blended", BLENDED), ("halo", HALO)):
        near = table[(table["way"] == way) & (table["distance_px"] < NEAR_PX)].sum()
        share, peer = near["wrong"] / near["pixels"], near["wrong_whole"] / near["pixels"]
        yield Measurement(
            name=f"seam.{name}",
            value=100 * share,
            unit=f"% of pixels wrong within {NEAR_PX} px of an edge, pieces {way}, {MODEL}",
            peer=WHOLE,
            peer_value=100 * peer,
            ratio=share / peer,
        )
    yield Measurement(
        name="seam.exact",
        value=difference,
        unit=f"of 255 steps between pieces {HALO} and {WHOLE}, at most",
        goal=f"<= {GOAL_STEPS}",
        met=difference <= GOAL_STEPS,
    )


def count_wrong(model: str, images: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Count the pixels that a model takes wrongly for nucleus or background, in all ways.

    Pixels nearer to the image's border than half a patch are left out: there context lacks in any way.

    Args:
        model: Name or folder of a model of outlines.
        images: Rows of a checked sheet of annotated images.

    Returns:
        Columns ``way``, ``distance_px`` from the nearest edge, ``pixels``, ``wrong`` and ``wrong_whole``, the
        wrong ones among the same pixels where the image is predicted at once; and the largest difference
        of any map between pieces with a halo and the image at once, in steps of 255.
    """
    network, card = load_model(model_folder(model))
    ways = {
        ALONE: Way(PATCH_PX, 0, "halo"),
        BLENDED: Way(STRIDE_PX, (PATCH_PX - STRIDE_PX) // 2, "weighted"),
        HALO: Way(PATCH_PX, card.halo_px, "halo"),
    }
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((3, PATCH_PX // 2)))
    difference = 0
    margin = PATCH_PX // 2
    inner = np.s_[margin:-margin, margin:-margin]
    for _, row in images.iterrows():
        with open_slide(row["path"], row["mpp"]) as slide:
            grid = Grid.of_slide(slide.facts, card.mpp)
            fit = image_stains(row["path"], slide.facts.mpp, row["stain"])
            pieces = _Pieces(slide, grid, network, card, input_layer(card, fit, "hematoxylin"))
            longest = max(grid.width, grid.height)
            whole = pieces.predict(Way(longest + -longest % card.stride, card.halo_px, "halo"))
            size = slide.facts.width, slide.facts.height
            truth = (
                instance_map(read_annotation(row, size, slide.facts.mpp).annotation, grid, slide.facts.mpp)
                > 0
            )
            wrong_whole = (_nucleus(whole, card) != truth)[inner]
            for name, way in ways.items():
                maps = pieces.predict(way)
                wrong = (_nucleus(maps, card) != truth)[inner]
                distance = way.distance(*truth.shape)[inner].ravel()
                for place, weights in enumerate((np.ones_like(wrong), wrong, wrong_whole)):
                    counts[name][place] += np.bincount(distance, weights.ravel(), PATCH_PX // 2)
                if name == HALO:
                    difference = max(difference, int(np.abs(maps.astype(int) - whole).max()))
    tables = [
        pd.DataFrame({"way": name, "distance_px": np.arange(PATCH_PX // 2)}).join(
            pd.DataFrame(count.T.astype(int), columns=["pixels", "wrong", "wrong_whole"])
        )
        for name, count in counts.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[table["pixels"] > 0], difference


@dataclass(frozen=True)
class _Pieces:
    """An image that is predicted in several ways."""

    slide: Slide
    grid: Grid
    network: nn.Module
    card: ModelCard
    inputs: nn.Module

    def predict(self, way: Way) -> np.ndarray:
        """The maps of the image, uint8, ``(c, h, w)``."""
        layout = TileLayout.of_grid(self.grid, way.core, way.halo, self.card.stride)
        tiles = np.argwhere(np.ones((layout.rows, layout.columns)))
        corners = tiles * layout.core - layout.halo
        side = layout.window
        windows = (read_window(self.slide, self.grid, x, y, side, side).copy() for y, x in corners)
        predictor = Predictor(
            fold_batch_norm(self.network), self.card.output, torch.device("cpu"), 1, threads=THREADS
        )
        predictions = np.stack(list(predictor.predict(windows, self.inputs)))
        maps = np.zeros(self.card.map_shape(self.grid.height, self.grid.width), np.uint8)
        for rows, columns, block in assemble(predictions, tiles, layout, self.grid, way.method):
            maps[:, rows, columns] = block
        return maps


def _nucleus(maps: np.ndarray, card: ModelCard) -> np.ndarray:
    """Which pixels a model takes for nucleus, boundary included, bool, ``(h, w)``."""
    if "background" in card.maps:
        return maps[card.maps.index("background")] < map_level(0.5)
    return maps[card.maps.index("nucleus")] >= map_level(card.decoding.threshold)


def draw_seam(table: pd.DataFrame) -> Figure:
    """Wrong pixels that each way adds to those of the whole image, by distance from an edge.

    Args:
        table: From :func:`count_wrong`.
    """
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for colour, (name, part) in zip(PALETTE, table.groupby("way", sort=False), strict=False):
        added = 100 * (part["wrong"] - part["wrong_whole"]) / part["pixels"]
        axes.plot(part["distance_px"] + 0.5, added, color=colour, label=str(name))
    axes.set_xlabel("distance from the nearest edge of a piece, model pixels")
    axes.set_ylabel("wrong pixels added, %")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
