"""How large a cohort's slides are, from the headers of some and the file sizes of all."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from karyon.cohort.plan import SlideRow
from karyon.errors import KaryonError, SlideError
from karyon.io.slides import open_slide

SAMPLE = 100


@dataclass(frozen=True)
class SlideSizes:
    """Sizes of a cohort's slides, measured or estimated.

    Attributes:
        gigapixels: Of level 0, float64, one per slide.
        area_mm2: The same in square millimetres.
        opened: Slides whose headers were read.
        unreadable: How many of these could not be; they are taken to be like the others.
        error: Half the width of the 95 % interval of the gigapixels' sum; 0 where every header was read.
    """

    gigapixels: np.ndarray
    area_mm2: np.ndarray
    opened: int
    unreadable: int
    error: float


def slide_sizes(slides: Sequence[SlideRow], sample: int = SAMPLE) -> SlideSizes:
    """Sizes of all slides; 30,000 headers would take minutes to hours, so larger cohorts are sampled.

    Pixels and area of a slide that was not opened are its file size times their ratio to the file size in the
    sample, among files of the same extension where the sample has any: compression differs between formats.

    Args:
        slides: The cohort's.
        sample: Headers read at most, drawn at random and the same ones every time.

    Raises:
        KaryonError: None of the slides that were drawn can be opened.
    """
    numbers = sorted(random.Random(0).sample(range(len(slides)), min(sample, len(slides))))  # noqa: S311
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(_header, (slides[number] for number in numbers)))
    known = {number: size for number, size in zip(numbers, found, strict=True) if size}
    if not known:
        raise KaryonError(f"none of {len(numbers)} slides can be opened, such as {slides[numbers[0]].path}")
    size = np.array([slide.size for slide in slides], dtype=np.float64)
    suffix = np.array([PurePath(slide.path).suffix.lower() for slide in slides])
    drawn, values = np.array(list(known)), np.array(list(known.values()))
    ratios = {"": values.sum(axis=0) / size[drawn].sum()}
    for name in set(suffix[drawn]):
        same = suffix[drawn] == name
        ratios[str(name)] = values[same].sum(axis=0) / size[drawn][same].sum()
    estimated = size[:, None] * np.array([ratios.get(str(name), ratios[""]) for name in suffix])
    residuals = values[:, 0] - estimated[drawn, 0]
    estimated[drawn] = values
    return SlideSizes(
        gigapixels=estimated[:, 0],
        area_mm2=estimated[:, 1],
        opened=len(numbers),
        unreadable=len(numbers) - len(known),
        error=_error_of_sum(residuals, len(slides)),
    )


def _header(slide: SlideRow) -> tuple[float, float] | None:
    """Gigapixels and square millimetres of a slide; nothing where it cannot be opened."""
    try:
        with open_slide(slide.path, slide.mpp or None) as opened:
            pixels = opened.facts.width * opened.facts.height
            return pixels / 1e9, pixels * (opened.facts.mpp / 1000) ** 2
    except SlideError:
        return None


def _error_of_sum(residuals: np.ndarray, slides: int) -> float:
    """1.96 standard errors of a ratio estimate's sum (Cochran 1977, section 6.4)."""
    drawn = len(residuals)
    if drawn in (1, slides):
        return 0.0
    return 1.96 * slides * math.sqrt((1 - drawn / slides) / drawn * float(residuals.var(ddof=1)))
