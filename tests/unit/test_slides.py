"""Opening slides and plain images: what is known of them, their pixels, and what is refused."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from karyon.errors import SlideError
from karyon.io.slides import choose_mpp, flatten_alpha, open_slide

SLIDE = Path("a.svs")
REGION = "slides/CMU-1-Small-Region.svs"


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def pixels_of(path: Path) -> np.ndarray:
    with open_slide(path, mpp=0.5) as slide:
        return slide.read(0, 0, 0, slide.facts.width, slide.facts.height)


@pytest.mark.parametrize(
    ("sheet", "metadata", "tags", "expected"),
    [
        (0.3, 0.25, 0.5, (0.3, "sheet")),
        (None, 0.25, 0.5, (0.25, "metadata")),
        (float("nan"), 0.25, None, (0.25, "metadata")),
        (None, None, 0.5, (0.5, "resolution_tags")),
    ],
)
def test_mpp_is_the_sheets_then_the_metadatas_then_the_resolution_tags(
    sheet: float | None, metadata: float | None, tags: float | None, expected: tuple[float, str]
) -> None:
    assert choose_mpp(SLIDE, sheet, metadata, tags) == expected


def test_unknown_mpp_is_an_error_that_names_the_file_and_the_sheets_column() -> None:
    with pytest.raises(SlideError, match=r"a\.svs: .*microns per pixel.*sheet's column mpp"):
        choose_mpp(SLIDE, None, None, None)


@pytest.mark.parametrize("mpp", [1000.0, 0.0, -0.5, 0.01, float("inf")])
def test_mpp_that_no_microscope_has_is_refused_from_the_sheet(mpp: float) -> None:
    with pytest.raises(SlideError, match=r"a\.svs: mpp from sheet is .*expected 0\.05 to 20"):
        choose_mpp(SLIDE, mpp, 0.25, None)


def test_mpp_that_no_microscope_has_is_refused_from_metadata() -> None:
    with pytest.raises(SlideError, match=r"mpp from metadata is 1000; .*sheet's column mpp"):
        choose_mpp(SLIDE, None, 1000.0, 0.5)


def test_resolution_tags_of_a_plain_tiff_give_mpp(tmp_path: Path) -> None:
    gray = Image.new("RGB", (8, 8))
    per_cm = save(tmp_path / "cm.tif", gray, resolution_unit=3, x_resolution=20_000.0, y_resolution=20_000.0)
    per_inch = save(
        tmp_path / "in.tif", gray, resolution_unit=2, x_resolution=50_800.0, y_resolution=50_800.0
    )
    for path in (per_cm, per_inch):
        with open_slide(path) as slide:
            assert slide.facts.mpp == pytest.approx(0.5)
            assert slide.facts.mpp_source == "resolution_tags"


def test_printing_resolution_says_nothing_of_the_microscope(tmp_path: Path) -> None:
    gray = Image.new("RGB", (8, 8))
    for path in (
        save(tmp_path / "a.tif", gray, dpi=(72, 72)),
        save(tmp_path / "a.png", gray, dpi=(25_400, 25_400)),
        save(tmp_path / "a.jpg", gray, dpi=(25_400, 25_400)),
    ):
        with pytest.raises(SlideError, match="does not state its microns per pixel"):
            open_slide(path)


def test_pyramids_facts_are_those_written(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        facts = slide.facts
    assert (facts.width, facts.height, facts.vendor) == (640, 480, "generic-tiff")
    assert facts.level_sizes == ((640, 480), (320, 240), (80, 60))
    assert [facts.downsample(level) for level in range(3)] == [1, 2, 8]
    assert facts.mpp == pytest.approx(0.25)
    assert (facts.bounds_x, facts.bounds_y) == (0, 0)


@pytest.mark.parametrize(("level", "step"), [(0, 1), (1, 2), (2, 8)])
def test_box_of_a_level_holds_that_levels_pixels(
    pyramid: Path, scene: np.ndarray, level: int, step: int
) -> None:
    with open_slide(pyramid) as slide:
        box = slide.read(level, 13, 7, 60, 40)
    np.testing.assert_array_equal(box, scene[::step, ::step][7:47, 13:73])


def test_box_of_a_level_of_uneven_size_is_off_by_less_than_an_eighth_of_its_pixel(tmp_path: Path) -> None:
    # 1003 / 250 and 1501 / 375 differ, so that OpenSlide's one number fits neither axis.
    y, x = np.mgrid[:250, :375]
    slope = 8  # gray levels per pixel, as triangle waves
    coarse = np.stack([np.abs(axis % 60 - 30) * slope for axis in (x, y, x + y)], axis=-1).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(
            np.zeros((1003, 1501, 3), np.uint8), tile=(64, 64), photometric="rgb", compression="zlib"
        )
        writer.write(coarse, tile=(64, 64), photometric="rgb", compression="zlib", subfiletype=1)
    with open_slide(tmp_path / "a.tif", mpp=0.25) as slide:
        assert slide.facts.level_sizes[1] == (375, 250)
        for left, top in ((64, 61), (200, 100), (301, 187)):
            box = slide.read(1, left, top, 60, 50).astype(int)
            error = np.abs(box - coarse[top : top + 50, left : left + 60])[1:-1, 1:-1, :2]
            assert error.max() <= slope / 8 + 1


def test_whole_real_slide_is_described(real_file: Callable[[str], Path]) -> None:
    with open_slide(real_file(REGION)) as slide:
        facts = slide.facts
    assert (facts.width, facts.height, facts.level_sizes) == (2220, 2967, ((2220, 2967),))
    assert (facts.mpp, facts.mpp_source, facts.vendor) == (0.499, "metadata", "aperio")


def test_real_slide_is_read_as_openslide_reads_it(real_file: Callable[[str], Path]) -> None:
    path = real_file(REGION)
    with open_slide(path) as slide, openslide.OpenSlide(path) as reference:
        for x, y, width, height in ((0, 0, 300, 200), (1001, 1503, 257, 129), (2000, 2900, 220, 67)):
            expected = np.asarray(reference.read_region((x, y), 0, (width, height)).convert("RGB"))
            np.testing.assert_array_equal(slide.read(0, x, y, width, height), expected)


def test_sheets_mpp_overrides_a_real_slides(real_file: Callable[[str], Path]) -> None:
    with open_slide(real_file(REGION), mpp=0.25) as slide:
        assert (slide.facts.mpp, slide.facts.mpp_source) == (0.25, "sheet")


def test_slide_that_openslide_cannot_open_is_refused(real_file: Callable[[str], Path]) -> None:
    with pytest.raises(SlideError, match=r"openslide-python_unopenable\.tiff: .*open"):
        open_slide(real_file("slides/openslide-python_unopenable.tiff"), mpp=0.5)


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()
    with pytest.raises(SlideError, match=r"a\.svs: the file is empty \(0 bytes\); copy it again"):
        open_slide(tmp_path / "a.svs", mpp=0.5)


def test_text_named_svs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(SlideError, match=r"a\.svs: neither OpenSlide nor Pillow can open it"):
        open_slide(tmp_path / "a.svs", mpp=0.5)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"a\.svs: cannot be read \(No such file"):
        open_slide(tmp_path / "a.svs", mpp=0.5)


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"cannot be read \(Is a directory\)"):
        open_slide(tmp_path, mpp=0.5)


def test_truncated_image_is_refused(tmp_path: Path, scene: np.ndarray) -> None:
    whole = save(tmp_path / "whole.png", Image.fromarray(scene)).read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SlideError, match=r"a\.png: neither OpenSlide nor Pillow can open it"):
        open_slide(tmp_path / "a.png", mpp=0.5)


def png_that_promises(path: Path, width: int, height: int) -> Path:
    """A PNG of a few bytes whose header claims a size; decoding it would fail in another way."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"not zlib") + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(("width", "height"), [(15_000, 13_000), (200_000, 200_000)])
def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, width: int, height: int) -> None:
    path = png_that_promises(tmp_path / "bomb.png", width, height)
    with pytest.raises(SlideError, match=r"bomb\.png: too large .*178,956,970 pixels.*tiled pyramidal TIFF"):
        open_slide(path, mpp=0.5)


@pytest.mark.filterwarnings("error")
def test_image_below_the_limit_is_decoded_without_a_warning(tmp_path: Path) -> None:
    path = png_that_promises(tmp_path / "large.png", 13_000, 13_000)
    with pytest.raises(
        SlideError, match="neither OpenSlide nor Pillow"
    ):  # the decoder's word, not the size's
        open_slide(path, mpp=0.5)


def test_alpha_is_composited_over_white() -> None:
    rgba = np.array([[[100, 201, 50, 128], [10, 20, 30, 0], [10, 20, 30, 255]]], np.uint8)
    # 100 * 128/255 + 255 * 127/255 = 177.2; the others 227.9 and 152.1
    np.testing.assert_array_equal(flatten_alpha(rgba), [[[177, 228, 152], [255, 255, 255], [10, 20, 30]]])


def test_transparent_images_are_read_over_white(tmp_path: Path) -> None:
    rgba = Image.new("RGBA", (2, 1), (100, 200, 50, 128))
    gray = Image.new("LA", (2, 1), (100, 128))
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([9, 9, 9, 10, 20, 30])
    palette.putpixel((0, 0), 0)
    np.testing.assert_array_equal(pixels_of(save(tmp_path / "a.png", rgba))[0, 0], [177, 227, 152])
    np.testing.assert_array_equal(pixels_of(save(tmp_path / "b.png", gray))[0, 0], [177, 177, 177])
    np.testing.assert_array_equal(
        pixels_of(save(tmp_path / "c.png", palette, transparency=0))[0], [[255, 255, 255], [10, 20, 30]]
    )


def test_palette_gray_bilevel_and_cmyk_images_are_read_as_rgb(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    images = {
        "palette.png": (palette, [10, 20, 30]),
        "gray.png": (Image.new("L", (2, 1), 77), [77, 77, 77]),
        "bilevel.png": (Image.new("1", (2, 1), 1), [255, 255, 255]),
        "cmyk.tif": (Image.new("CMYK", (2, 1), (0, 255, 255, 0)), [255, 0, 0]),  # no cyan, no black: red
    }
    for name, (image, expected) in images.items():
        pixels = pixels_of(save(tmp_path / name, image))
        assert (pixels.shape, pixels.dtype) == ((1, 2, 3), np.uint8), name
        np.testing.assert_array_equal(pixels[0, 1], expected, err_msg=name)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_images_are_refused(tmp_path: Path, suffix: str, channels: int) -> None:
    pixels = np.full((4, 5, channels), 4000, np.uint16).squeeze()
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        path.write_bytes(imagecodecs.png_encode(pixels))
    else:
        extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
        tifffile.imwrite(path, pixels, photometric="minisblack" if channels == 1 else "rgb", **extra)
    with pytest.raises(SlideError, match=rf"a\.{suffix}: .*(;16.* is not 8-bit colour|can open it)"):
        open_slide(path, mpp=0.5)


def test_floating_point_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="pixel type F is not 8-bit colour"):
        open_slide(save(tmp_path / "a.tif", Image.new("F", (4, 4), 0.5)), mpp=0.5)


def test_reopened_slide_reads_on_after_a_tile_that_cannot_be_decoded(
    pyramid: Path, scene: np.ndarray, tmp_path: Path
) -> None:
    with tifffile.TiffFile(pyramid) as tiff:
        start, length = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    content = bytearray(pyramid.read_bytes())
    content[start : start + length] = bytes(length)
    (tmp_path / "a.tif").write_bytes(content)
    with open_slide(tmp_path / "a.tif") as slide:
        with pytest.raises(SlideError, match=r"a\.tif: level 0, x 10, y 20: cannot be decoded"):
            slide.read(0, 10, 20, 30, 30)
        slide.reopen()
        np.testing.assert_array_equal(slide.read(0, 128, 64, 50, 60), scene[64:124, 128:178])
