"""The stains of annotated images, fitted as those of slides, and kept."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

from karyon.io.atomic import atomic_path
from karyon.io.slides import open_slide
from karyon.stain.fit import StainFit
from karyon.stain.sample import separate_slide
from karyon.tissue.mask import tissue_mask
from karyon.tissue.thumbnail import read_thumbnail

MASK_MPP = 8.0
SAMPLE_PIXELS = 200_000
# Goes up when a fit of the same image would come out otherwise.
VERSION = 1


@cache
def image_stains(path: str, mpp: float, stain: str, kept: str = "") -> StainFit:
    """The stains of an image, as those of a slide with the configuration's defaults.

    The runs of a study read the same images over and over, and this takes most of the time.

    Args:
        path: The image.
        mpp: Microns per pixel.
        stain: ``HE`` or ``IHC``.
        kept: Folder that keeps fits for other processes; '' for none. A fit is found by path, size and time
            of the image.

    Raises:
        SlideError: The image cannot be read.
    """
    if not kept:
        return _fit(path, mpp, stain)
    facts = Path(path).stat()
    key = repr((VERSION, path, facts.st_size, facts.st_mtime_ns, mpp, stain))
    file = Path(kept) / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    if file.exists():
        return StainFit.from_json(json.loads(file.read_text(encoding="utf-8")))
    fit = _fit(path, mpp, stain)
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps(fit.to_json()), encoding="utf-8")
    return fit


def _fit(path: str, mpp: float, stain: str) -> StainFit:
    with open_slide(path, mpp) as slide:
        thumbnail, _ = read_thumbnail(slide, MASK_MPP)
        mask = tissue_mask(thumbnail, MASK_MPP, "otsu", 0.0)
        return separate_slide(slide, mask, thumbnail, stain, SAMPLE_PIXELS)
