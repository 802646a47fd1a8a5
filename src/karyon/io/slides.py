"""Open whole-slide images and plain images behind one small interface."""

from __future__ import annotations

import math
import os
import re
import stat
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from karyon.errors import SlideError

# A microscope's pixel lies within these; anything else is a mistake in the sheet or the file.
MPP_MIN, MPP_MAX = 0.05, 20.0
# A plain image is decoded as a whole: 0.54 GB as RGB at the limit, beyond which Pillow opens none.
MAX_PLAIN_PIXELS = 178_956_970
# The largest glass for whole organs measures 203 mm; an image that would be larger has a wrong mpp.
MAX_SIDE_MM = 250.0
# A box no larger than this, a quarter of a tile of most files, is given up as a whole.
SMALLEST_BOX_PX = 64
# A few broken tiles are a scanner's hiccup; more, and the file was cut off or damaged on its way.
MAX_LOST_SHARE = 0.05
DAMAGED = "the file is damaged, incomplete or not a slide: copy it again from the scanner"

SIXTEEN_BIT = re.compile(r"\w+;16[BLN]")
MICRONS_PER_UNIT = {"centimeter": 10_000.0, "inch": 25_400.0, 3: 10_000.0, 2: 25_400.0}


@dataclass(frozen=True)
class SlideFacts:
    """What is known of a slide before any pixel is read.

    Attributes:
        width: Level-0 width in pixels.
        height: Level-0 height in pixels.
        mpp: Microns per level-0 pixel.
        mpp_source: Where ``mpp`` came from: ``sheet``, ``metadata`` or ``resolution_tags``.
        level_sizes: ``(width, height)`` of each level, finest first.
        bounds_x: Left of the scanned area in level-0 pixels (MRXS and others; else 0).
        bounds_y: Top of the scanned area in level-0 pixels.
        vendor: OpenSlide's vendor name, or ``image`` for a plain image.
    """

    width: int
    height: int
    mpp: float
    mpp_source: str
    level_sizes: tuple[tuple[int, int], ...]
    bounds_x: int
    bounds_y: int
    vendor: str

    def downsample(self, level: int) -> float:
        """Level-0 pixels per pixel of ``level``, the mean of both axes as OpenSlide defines it."""
        width, height = self.level_sizes[level]
        return (self.width / width + self.height / height) / 2


class Slide(ABC):
    """A slide open for reading, by one thread at a time."""

    facts: SlideFacts

    @abstractmethod
    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Pixels of a box in the coordinates of ``level``, wholly inside it.

        Returns:
            RGB, uint8, ``(height, width, 3)``.

        Raises:
            SlideError: The pixels cannot be decoded.
        """

    def reopen(self) -> None:  # noqa: B027 (a plain image has no handle)
        """Replace the handle: OpenSlide refuses every read after one that failed."""

    def close(self) -> None:  # noqa: B027
        """Give back the file handle."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class OpenSlideSlide(Slide):
    """Any format that OpenSlide reads."""

    def __init__(self, path: Path, sheet_mpp: float | None) -> None:
        import openslide

        self._open = openslide.OpenSlide
        self._path = path
        self._handle = self._open(str(path))
        properties = self._handle.properties
        mpp, source = choose_mpp(path, sheet_mpp, _openslide_mpp(properties), _openslide_tag_mpp(properties))
        width, height = self._handle.dimensions
        self.facts = SlideFacts(
            width=width,
            height=height,
            mpp=mpp,
            mpp_source=source,
            level_sizes=tuple(self._handle.level_dimensions),
            bounds_x=int(properties.get("openslide.bounds-x", 0)),
            bounds_y=int(properties.get("openslide.bounds-y", 0)),
            vendor=properties.get("openslide.vendor", "unknown"),
        )

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        import openslide

        # OpenSlide takes level-0 coordinates and divides them again, both axes by the same number.
        downsample = self.facts.downsample(level)
        location = (round(x * downsample), round(y * downsample))

        try:
            region = self._handle.read_region(location, level, (width, height))
        except openslide.OpenSlideError as error:
            raise SlideError(
                f"{self._path}: level {level}, x {x}, y {y}: cannot be decoded ({error})"
            ) from error
        return flatten_alpha(np.asarray(region))

    def reopen(self) -> None:
        self._handle.close()
        self._handle = self._open(str(self._path))

    def close(self) -> None:
        self._handle.close()


class ImageSlide(Slide):
    """A plain PNG, JPEG or TIFF, held in memory, with one level."""

    def __init__(self, path: Path, sheet_mpp: float | None) -> None:
        try:
            # Pillow warns of a "decompression bomb" at half the number of pixels that it refuses.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(path) as image:
                    tags = _image_tag_mpp(image)
                    self._pixels = _to_rgb(path, image)
        except Image.DecompressionBombError as error:
            raise SlideError(
                f"{path}: too large for a plain image, of which at most {MAX_PLAIN_PIXELS:,} pixels are read "
                f"({error}). Convert it to a tiled pyramidal TIFF."
            ) from error
        except (OSError, SyntaxError, ValueError) as error:
            message = f"{path}: neither OpenSlide nor Pillow can open it ({error}); {DAMAGED}."
            raise SlideError(message) from error
        mpp, source = choose_mpp(path, sheet_mpp, None, tags)
        height, width = self._pixels.shape[:2]
        self.facts = SlideFacts(width, height, mpp, source, ((width, height),), 0, 0, "image")

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        return self._pixels[y : y + height, x : x + width]


class PatchedSlide(Slide):
    """A slide of which what cannot be decoded comes out white, as glass is, and is counted.

    A box that fails is read again on a fresh handle, a large one in halves, so that a file server's hiccup
    costs nothing, and a broken tile of the file no more than its own surroundings.

    Args:
        slide: An open slide; closed with this one.
        limit: Share of the slide's area that may be lost; beyond it, reading raises a SlideError.

    Attributes:
        lost: Share of the slide's area that could not be decoded so far.
    """

    def __init__(self, slide: Slide, limit: float = MAX_LOST_SHARE) -> None:
        self._slide = slide
        self._limit = limit
        self.facts = slide.facts
        self.lost = 0.0

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        try:
            return self._slide.read(level, x, y, width, height)
        except SlideError:
            self._slide.reopen()
        if max(width, height) <= SMALLEST_BOX_PX:
            return self._read_again(level, x, y, width, height)
        if width >= height:
            half = width // 2
            parts = self.read(level, x, y, half, height), self.read(level, x + half, y, width - half, height)
            return np.concatenate(parts, axis=1)
        half = height // 2
        return np.concatenate(
            (self.read(level, x, y, width, half), self.read(level, x, y + half, width, height - half))
        )

    def close(self) -> None:
        self._slide.close()

    def _read_again(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        try:
            return self._slide.read(level, x, y, width, height)
        except SlideError as error:
            self._slide.reopen()
            self.lost += width * height / math.prod(self.facts.level_sizes[level])
            if self.lost > self._limit:
                raise SlideError(
                    f"{error}. More than {self._limit:.0%} of the slide cannot be read: {DAMAGED}."
                ) from error
            return np.full((height, width, 3), 255, np.uint8)


def open_slide(path: str | os.PathLike[str], mpp: float | None = None) -> Slide:
    """Open a slide or a plain image.

    Args:
        path: A file that OpenSlide reads, or a PNG, JPEG or TIFF image.
        mpp: Microns per level-0 pixel from the sheet; ``None`` takes the file's own.

    Raises:
        SlideError: The file is missing, unreadable, of no known format, of unknown mpp, or larger than
            any slide at the mpp that is given.
    """
    import openslide

    path = Path(path)
    _check_readable(path)
    try:
        slide: Slide = OpenSlideSlide(path, mpp)
    except openslide.OpenSlideUnsupportedFormatError:
        slide = ImageSlide(path, mpp)
    except openslide.OpenSlideError as error:
        message = f"{path}: OpenSlide knows the format but cannot open it ({error}); {DAMAGED}."
        raise SlideError(message) from error
    facts = slide.facts
    side_mm = max(facts.width, facts.height) * facts.mpp / 1000
    if side_mm > MAX_SIDE_MM:
        slide.close()
        raise SlideError(
            f"{path}: at {facts.mpp:g} microns per pixel (from {facts.mpp_source.replace('_', ' ')}) it would"
            f" be {side_mm:,.0f} mm long, and no slide is over {MAX_SIDE_MM:.0f} mm. Give the right number in"
            " the sheet's column mpp."
        )
    return slide


def _check_readable(path: Path) -> None:
    """Refuse what is missing, a folder, a pipe, unreadable or empty, and say what to do about it."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a pipe would wait for ever
            raise SlideError(f"{path}: that is a device or pipe; expected a file.")
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        remedies = {
            FileNotFoundError: "check the path in the sheet, or copy the file there",
            IsADirectoryError: "name the slide's file in the sheet, not a folder",
            PermissionError: "ask whoever owns the file for the right to read it",
        }
        remedy = remedies.get(type(error), "check the disk or server it is on, and copy it again")
        raise SlideError(f"{path}: cannot be read ({error.strerror}); {remedy}.") from error
    if empty:
        raise SlideError(f"{path}: the file is empty (0 bytes); copy it again.")


def choose_mpp(
    path: Path, sheet: float | None, metadata: float | None, resolution_tags: float | None
) -> tuple[float, str]:
    """The first mpp that is given: sheet, then metadata, then resolution tags.

    Raises:
        SlideError: None is given, or the first one given is outside 0.05 to 20 microns per pixel.
    """
    candidates = {"sheet": sheet, "metadata": metadata, "resolution_tags": resolution_tags}
    for source, mpp in candidates.items():
        if mpp is None or np.isnan(mpp):
            continue
        if not MPP_MIN <= mpp <= MPP_MAX:
            raise SlideError(
                f"{path}: mpp from {source.replace('_', ' ')} is {mpp:g}; expected {MPP_MIN} to {MPP_MAX} "
                "microns per pixel. Give the right one in the sheet's column mpp."
            )
        return float(mpp), source
    raise SlideError(
        f"{path}: the file does not state its microns per pixel. Give it in the sheet's column mpp."
    )


def flatten_alpha(rgba: np.ndarray) -> np.ndarray:
    """RGB over white; areas that the scanner skipped are transparent and count as glass.

    Args:
        rgba: uint8, ``(h, w, 4)``.

    Returns:
        uint8, ``(h, w, 3)``.
    """
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    blended = rgba[..., :3].astype(np.uint16) * alpha + 255 * (255 - alpha.astype(np.uint16))
    return ((blended + 127) // 255).astype(np.uint8)


def _to_rgb(path: Path, image: Image.Image) -> np.ndarray:
    """Decode to RGB uint8; 16-bit pixels are refused, for their scale is unknown."""
    # 16-bit colour has the mode of 8-bit colour; only the raw mode of its tiles, "RGB;16B", tells.
    tiles = getattr(image, "tile", ())
    raw_mode = next((mode for tile in tiles for mode in SIXTEEN_BIT.findall(str(tile))), image.mode)
    if raw_mode.startswith(("I", "F")) or SIXTEEN_BIT.match(raw_mode):
        raise SlideError(f"{path}: pixel type {raw_mode} is not 8-bit colour; convert it to 8-bit RGB.")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return flatten_alpha(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _openslide_mpp(properties: object) -> float | None:
    values = [_positive(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"]  # type: ignore[attr-defined]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _openslide_tag_mpp(properties: object) -> float | None:
    unit = str(properties.get("tiff.ResolutionUnit", "")).lower()  # type: ignore[attr-defined]
    per_unit = _positive(properties.get("tiff.XResolution"))  # type: ignore[attr-defined]
    return _mpp_of_resolution(per_unit, unit)


def _image_tag_mpp(image: Image.Image) -> float | None:
    """Only TIFF tags: the dpi of a PNG or JPEG describes printing, not the microscope."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return None
    resolution_unit, x_resolution = 296, 282  # TIFF 6.0, section 8
    return _mpp_of_resolution(_positive(tags.get(x_resolution)), tags.get(resolution_unit, 2))


def _mpp_of_resolution(per_unit: float | None, unit: str | int) -> float | None:
    """72 dpi and its like mean "not set": a microscope's resolution is over 1,000 pixels per inch."""
    if per_unit is None or unit not in MICRONS_PER_UNIT:
        return None
    mpp = MICRONS_PER_UNIT[unit] / per_unit
    return mpp if MPP_MIN <= mpp <= MPP_MAX else None


def _positive(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and number > 0 else None
