"""The grid of model pixels over a slide, and the tiles that cover it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from karyon.io.slides import Slide, SlideFacts

# Within 2 % of a level's own resolution its pixels are used as they are: resampling would only blur them.
SNAP = 0.02
# Ratios are multiples of 1/1024: Pillow keeps a box's corners as float32, which then holds them exactly, so
# that a pixel comes out the same in every window. The grid's scale takes the rounding up (0.05 % at most).
RATIO_STEPS = 1024


@dataclass(frozen=True)
class Grid:
    """Model pixels over a slide: where each lies, and which level it is read from.

    Attributes:
        width: Model pixels across.
        height: Model pixels down.
        scale: Level-0 pixels per model pixel.
        level: The level that is read: the coarsest that is no coarser than the model pixel.
        ratio: Pixels of that level per model pixel; below 1 only where the slide itself is coarser.
    """

    width: int
    height: int
    scale: float
    level: int
    ratio: float

    @classmethod
    def of_slide(cls, facts: SlideFacts, mpp: float) -> Grid:
        """The grid of ``mpp`` microns per model pixel.

        Args:
            facts: The slide.
            mpp: Target microns per pixel.
        """
        wanted = mpp / facts.mpp
        levels = range(len(facts.level_sizes))
        level = max((k for k in levels if facts.downsample(k) <= wanted * (1 + SNAP)), default=0)
        ratio = wanted / facts.downsample(level)
        ratio = 1.0 if abs(ratio - 1) <= SNAP else max(round(ratio * RATIO_STEPS), 1) / RATIO_STEPS
        level_width, level_height = facts.level_sizes[level]
        return cls(
            width=max(1, int(level_width / ratio)),
            height=max(1, int(level_height / ratio)),
            scale=ratio * facts.downsample(level),
            level=level,
            ratio=ratio,
        )

    def to_level0(self, position: np.ndarray) -> np.ndarray:
        """Level-0 position of model-pixel positions; pixel centres are at integers in both."""
        return (position + 0.5) * self.scale - 0.5

    def from_level0(self, position: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`to_level0`."""
        return (position + 0.5) / self.scale - 0.5


def read_window(slide: Slide, grid: Grid, x: int, y: int, width: int, height: int) -> np.ndarray:
    """A window of model pixels, resampled; what lies outside the slide is white, as glass is.

    Every output pixel is an antialiased bilinear average about its own centre on the slide, so
    windows that overlap agree.

    Args:
        slide: An open slide.
        grid: Its grid.
        x: Left of the window in model pixels; may be negative.
        y: Top of the window in model pixels; may be negative.
        width: Width of the window in model pixels.
        height: Height of the window in model pixels.

    Returns:
        RGB, uint8, ``(height, width, 3)``.
    """
    x0, x1 = max(x, 0), min(x + width, grid.width)
    y0, y1 = max(y, 0), min(y + height, grid.height)
    inside = _resample(slide, grid, x0, y0, x1, y1)
    padding = ((y0 - y, y + height - y1), (x0 - x, x + width - x1), (0, 0))
    if not any(side for pair in padding for side in pair):
        return inside
    return np.pad(inside, padding, constant_values=255)


def _resample(slide: Slide, grid: Grid, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    if grid.ratio == 1.0:
        return slide.read(grid.level, x0, y0, x1 - x0, y1 - y0)
    level_width, level_height = slide.facts.level_sizes[grid.level]
    ratio = grid.ratio
    margin = int(np.ceil(max(ratio, 1.0))) + 1  # the support of the antialiased triangle filter
    left, right = max(int(x0 * ratio) - margin, 0), min(int(np.ceil(x1 * ratio)) + margin, level_width)
    top, bottom = max(int(y0 * ratio) - margin, 0), min(int(np.ceil(y1 * ratio)) + margin, level_height)
    pixels = slide.read(grid.level, left, top, right - left, bottom - top)
    across = (x0 * ratio - left, 0, min(x1 * ratio, level_width) - left, bottom - top)
    down = (0, y0 * ratio - top, x1 - x0, min(y1 * ratio, level_height) - top)
    # In two steps: Pillow itself takes rows or columns first by the window's shape, and rounds in between.
    resized = Image.fromarray(pixels).resize((x1 - x0, bottom - top), Image.Resampling.BILINEAR, box=across)
    return np.asarray(resized.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=down))
