"""Instance maps: images whose pixels hold the id of their nucleus."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from karyon.errors import SlideError
from karyon.io.annotations.files import check_readable
from karyon.io.annotations.matlab import read_variable
from karyon.io.slides import MAX_PLAIN_PIXELS

GRAY_MODES = ("L", "I", "I;16", "I;16B", "I;16L")
BAND_ROWS = 1024  # bounds the memory of the coordinates; results do not depend on it


def read_instances(path: Path | str, annotation_format: str) -> np.ndarray:
    """Read an instance map.

    Args:
        path: The file.
        annotation_format: One of ``INSTANCE_FORMATS``.

    Returns:
        int32, ``(height, width)``: 0 = background, else the id of the nucleus. Ids are the file's own, unless
        one exceeds both 65,535 and the number of pixels: then they are renumbered from 1 in their order, so
        that tables by id stay small.

    Raises:
        SlideError: The file is missing, cannot be decoded, is not a two-dimensional map, or an id is negative
            or not a whole number; or ``annotation_format`` is none of an instance map.
    """
    path = Path(path)
    if annotation_format not in _READERS:
        raise SlideError(
            f"{path}: annotation_format is {annotation_format!r}; an instance map is needed here, one of "
            f"{', '.join(INSTANCE_FORMATS)}."
        )
    check_readable(path)
    return _as_labels(path, _READERS[annotation_format](path))


def instance_points(instances: np.ndarray) -> np.ndarray:
    """Centroid of each nucleus of an instance map: the mean position of its pixels.

    Args:
        instances: Integer, ``(height, width)``, 0 = background; ids need not be consecutive, but memory grows
            with the largest.

    Returns:
        x and y in pixels, pixel centres at integers, float64, ``(n, 2)``, in the order of the ids.
    """
    number = int(instances.max(initial=0)) + 1
    sums = np.zeros((3, number))  # of 1, x, y: whole numbers below 2**53, so float64 is exact
    for top in range(0, instances.shape[0], BAND_ROWS):
        band = instances[top : top + BAND_ROWS]
        y, x = np.nonzero(band)
        label = band[y, x]
        sums[0] += np.bincount(label, minlength=number)
        sums[1] += np.bincount(label, weights=x, minlength=number)
        sums[2] += np.bincount(label, weights=y + top, minlength=number)
    count, sum_x, sum_y = sums[:, sums[0] > 0]
    return np.stack([sum_x / count, sum_y / count], axis=1)


def _read_png(path: Path) -> np.ndarray:
    try:
        # PIL warns from 90 Mpx on and refuses from 179 Mpx on; a warning is no use in a log.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.mode not in GRAY_MODES:
                    raise SlideError(
                        f"{path}: pixel type {image.mode} is not gray; expected an 8- or 16-bit gray image "
                        "with 0 for background and k for nucleus k, without colour, palette or transparency."
                    )
                check_size(path, image.height, image.width)
                return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SlideError(f"{path}: not an image that can be decoded ({error}); write it again.") from error


def _read_tiff(path: Path) -> np.ndarray:
    try:
        with tifffile.TiffFile(path) as tiff:
            # Page by page, for the chain of a damaged file's pages may never end.
            page = tiff.pages[0]
            _check_map(path, page.shape, page.dtype)
            if _has_page(tiff, 1) and tiff.pages[1].shape == page.shape:
                raise SlideError(f"{path}: several images of one size; expected one instance map.")
            array = page.asarray()
    except SlideError:
        raise
    except Exception as error:  # tifffile and its codecs raise errors of many kinds on a damaged file
        raise SlideError(f"{path}: not a TIFF that can be decoded ({error}); write it again.") from error
    _check_map(path, array.shape, array.dtype)  # damaged tags may promise another shape
    return array


def _has_page(tiff: tifffile.TiffFile, number: int) -> bool:
    try:
        tiff.pages[number]
    except IndexError:
        return False
    return True


def _read_npy(path: Path) -> np.ndarray:
    try:
        # Mapped, so that a header that promises more than the file holds is refused before memory is taken.
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # a damaged header fails in the parser's many ways
        raise SlideError(f"{path}: not a plain NumPy array ({error}); save it with numpy.save.") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise SlideError(f"{path}: an npz archive; expected a single array saved with numpy.save.")
    _check_map(path, array.shape, array.dtype)
    return np.array(array)


def _read_mat(path: Path) -> np.ndarray:
    array = read_variable(path, "inst_map", "array of height x width numbers", lambda shape: len(shape) == 2)
    _check_map(path, array.shape, array.dtype)
    return array


_READERS: dict[str, Callable[[Path], np.ndarray]] = {
    "instance_png": _read_png,
    "instance_tiff": _read_tiff,
    "instance_npy": _read_npy,
    "instance_mat": _read_mat,
}
INSTANCE_FORMATS = tuple(_READERS)


def _check_map(path: Path, shape: tuple[int, ...], dtype: np.dtype | None) -> None:
    if len(shape) != 2 or dtype is None or dtype.kind not in "iuf":
        raise SlideError(
            f"{path}: holds {dtype} values of shape {tuple(shape)}; expected whole numbers of shape "
            "(height, width) with 0 for background and k for nucleus k."
        )
    check_size(path, *shape)


def check_size(path: Path, height: int, width: int) -> None:
    """Refuse an instance map that is too large to be held.

    Raises:
        SlideError: It is.
    """
    if height * width > MAX_PLAIN_PIXELS:
        raise SlideError(
            f"{path}: an instance map of {width} x {height} pixels; at most {MAX_PLAIN_PIXELS:,} are read. "
            "Give the nuclei of a large slide as geojson or points_csv."
        )


def _as_labels(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.floor(array)).all()):
        y, x = np.argwhere(~(np.isfinite(array) & (array == np.floor(array))))[0]
        raise SlideError(
            f"{path}: the value at x {x}, y {y} is {array[y, x]:g}; expected whole numbers, 0 for background "
            "and k for nucleus k. Is it a probability map?"
        )
    if array.min(initial=0) < 0:
        y, x = np.argwhere(array < 0)[0]
        raise SlideError(
            f"{path}: the value at x {x}, y {y} is {array[y, x]:g}; expected ids of 0 or more. Set the "
            "pixels that belong to no nucleus to 0."
        )
    if array.max(initial=0) > max(array.size, 65_535):
        present, rank = np.unique(array, return_inverse=True)
        array = rank.reshape(array.shape) + (present[0] != 0)
    return array.astype(np.int32)
