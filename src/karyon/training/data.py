"""Annotated images on the model's grid, ready to be cropped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from karyon.io.annotations import instance_points, read_label_map
from karyon.io.slides import open_slide
from karyon.stain.concentrations import concentrations
from karyon.stain.sample import separate_slide
from karyon.tiles.grid import Grid, read_window
from karyon.tissue.mask import tissue_mask
from karyon.tissue.thumbnail import read_thumbnail
from karyon.training.targets import shrunken_mask

MASK_MPP = 8.0
SAMPLE_PIXELS = 200_000


@dataclass(frozen=True)
class TrainingImage:
    """One annotated image.

    Attributes:
        image_id: From the sheet.
        stains: Both concentrations in units of their 99th percentile, float32, ``(2, h, w)``.
        target: Training mask, float32, ``(h, w)``.
        grid: The model grid.
        mpp: Microns per level-0 pixel.
        truth: Nucleus centroids in level-0 pixels, ``(n, 2)``.
    """

    image_id: str
    stains: torch.Tensor
    target: torch.Tensor
    grid: Grid
    mpp: float
    truth: np.ndarray


def load_image(row: pd.Series, mpp: float) -> TrainingImage:
    """Read one image of a sheet through the same steps as a slide of a cohort.

    Args:
        row: A row of a checked sheet with an instance map as annotation.
        mpp: The model's microns per pixel.
    """
    with open_slide(row["path"], row["mpp"]) as slide:
        thumbnail, _ = read_thumbnail(slide, MASK_MPP)
        mask = tissue_mask(thumbnail, MASK_MPP, "otsu", 0.0)
        fit = separate_slide(slide, mask, thumbnail, row["stain"], SAMPLE_PIXELS)
        grid = Grid.of_slide(slide.facts, mpp)
        rgb = read_window(slide, grid, 0, 0, grid.width, grid.height)
        native_mpp = slide.facts.mpp
    stains = concentrations(rgb, fit.stain_matrix, fit.i0) / fit.p99.astype(np.float32)
    size = slide.facts.width, slide.facts.height
    instances = read_label_map(row["annotations"], row["annotation_format"], size)
    return TrainingImage(
        image_id=row["slide_id"],
        stains=torch.from_numpy(np.ascontiguousarray(stains.transpose(2, 0, 1))),
        target=torch.from_numpy(shrunken_mask(instances, grid, native_mpp)),
        grid=grid,
        mpp=native_mpp,
        truth=instance_points(instances),
    )
