"""The synthetic cohort: reproducible, true to its truth, and readable by OpenSlide."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest
import shapely
import tifffile
from PIL import Image, ImageDraw

from karyon.cli import demo_slides
from karyon.demo.cohort import render_cohort
from karyon.demo.exposure import beer_lambert, blur_taps, expose
from karyon.demo.look import Look, draw_look
from karyon.demo.noise import gradient_noise, lattice_hash, noise_at
from karyon.demo.nuclei import CELL_UM, Kind, nuclei_of_cell, outline_points
from karyon.demo.pyramid import halve, level_sizes, write_pyramid
from karyon.demo.slide import SlideRenderer
from karyon.demo.truth import truth_of_slide
from karyon.errors import KaryonError

WIDTH, HEIGHT, MPP = 1150, 901, 0.5


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_cohort(
        tmp_path_factory.mktemp("demo"), slides=2, width=WIDTH, height=HEIGHT, mpp=MPP, seed=3
    )


@pytest.fixture(scope="module")
def look() -> Look:
    return draw_look(1, 3, WIDTH * MPP, HEIGHT * MPP)


@pytest.fixture(scope="module")
def pixels(cohort: Path) -> np.ndarray:
    """Level 0 of the second slide, as OpenSlide decodes it."""
    with openslide.OpenSlide(cohort.parent / "slides/demo-2.svs") as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


def read_truth(cohort: Path, slide_id: str) -> tuple[np.ndarray, np.ndarray]:
    points = pd.read_csv(cohort.parent / f"annotations/{slide_id}.csv")
    assert list(points.columns) == ["x", "y"]
    features = json.loads((cohort.parent / f"annotations/{slide_id}.geojson").read_text())["features"]
    return points.to_numpy(), np.array([shapely.geometry.shape(f["geometry"]) for f in features])


def test_same_arguments_give_the_same_bytes(cohort: Path, tmp_path: Path) -> None:
    again = render_cohort(tmp_path, slides=2, width=WIDTH, height=HEIGHT, mpp=MPP, seed=3)
    files = sorted(path.relative_to(cohort.parent) for path in cohort.parent.rglob("*") if path.is_file())
    assert len(files) == 7
    for file in files:
        assert (again.parent / file).read_bytes() == (cohort.parent / file).read_bytes(), file


def test_another_seed_gives_another_slide() -> None:
    boxes = [
        SlideRenderer(draw_look(0, seed, 200, 200), 0.5).block(150, 150, 64, 64).astype(int)
        for seed in (0, 1)
    ]
    assert np.abs(boxes[0] - boxes[1]).mean() > 5


def test_nothing_but_the_cohort_is_left_behind(cohort: Path) -> None:
    names = {str(path.relative_to(cohort.parent)) for path in cohort.parent.rglob("*") if path.is_file()}
    slides = {f"slides/demo-{i}.svs" for i in (1, 2)}
    truth = {f"annotations/demo-{i}.{suffix}" for i in (1, 2) for suffix in ("csv", "geojson")}
    assert names == {"cohort.tsv"} | slides | truth
    folders = {path.name for path in cohort.parent.rglob("*") if path.is_dir()}
    assert folders == {"slides", "annotations"}


def test_sheet_has_the_agreed_columns_and_one_mpp_left_to_the_file(cohort: Path) -> None:
    sheet = pd.read_csv(cohort, sep="\t", dtype=str, keep_default_na=False)
    expected = ["slide_id", "path", "mpp", "organ", "stain", "patient", "annotations", "annotation_format"]
    assert list(sheet.columns) == expected
    assert sheet.mpp.tolist() == ["0.5", ""]
    assert set(sheet.organ) == {"synthetic"}
    assert set(sheet.stain) == {"HE"}
    assert set(sheet.annotation_format) == {"points_csv"}
    for path in [*sheet.path, *sheet.annotations]:
        assert (cohort.parent / path).is_file()


def test_openslide_finds_a_pyramid_with_its_mpp(cohort: Path) -> None:
    with openslide.OpenSlide(cohort.parent / "slides/demo-1.svs") as slide:
        assert slide.level_dimensions == ((1150, 901), (575, 450), (287, 225))
        assert slide.properties["openslide.mpp-x"] == slide.properties["openslide.mpp-y"] == "0.5"
        assert slide.properties["openslide.objective-power"] == "20"
        assert slide.properties["openslide.level[0].tile-width"] == "256"


def test_resolution_tags_state_the_mpp_of_every_level_and_no_date_is_stored(cohort: Path) -> None:
    with tifffile.TiffFile(cohort.parent / "slides/demo-1.svs") as tiff:
        for page in tiff.pages:
            numerator, denominator = page.tags["XResolution"].value
            assert page.tags["ResolutionUnit"].value == 3
            level_mpp = 1e4 / (numerator / denominator)
            assert level_mpp == pytest.approx(0.5 * WIDTH / page.imagewidth, rel=1e-6)
            assert not {"DateTime", "Software"} & {tag.name for tag in page.tags.values()}


def test_each_level_is_the_mean_of_level_0(cohort: Path, pixels: np.ndarray) -> None:
    with openslide.OpenSlide(cohort.parent / "slides/demo-2.svs") as slide:
        for level, (width, height) in list(enumerate(slide.level_dimensions))[1:]:
            factor = 2**level
            seen = np.asarray(slide.read_region((0, 0), level, (width, height)).convert("RGB"), dtype=float)
            blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
            difference = seen - blocks.mean(axis=(1, 3))
            # JPEG at quality 90 moves single pixels by a few grey levels and the mean hardly at all.
            assert np.abs(difference).mean() < 3.0
            assert abs(difference.mean()) < 0.3


def test_strip_height_and_block_place_do_not_change_pixels(look: Look) -> None:
    width, height = 1100, 600
    low = np.concatenate(list(SlideRenderer(look, MPP).strips(width, height, 256)))
    high = np.concatenate(list(SlideRenderer(look, MPP).strips(width, height, 600)))
    assert np.array_equal(low, high)
    assert np.array_equal(SlideRenderer(look, MPP).block(301, 217, 333, 111), low[217:328, 301:634])
    assert low.std() > 10


def test_layout_does_not_depend_on_the_cell_that_asks() -> None:
    look = draw_look(0, 5, 1500, 1200)
    left, right = nuclei_of_cell(look, 0, 1, 22.0), nuclei_of_cell(look, 1, 1, 22.0)

    def shared(nuclei: np.ndarray) -> np.ndarray:
        inside = (np.abs(nuclei["x"] - CELL_UM) < 22) & (nuclei["y"] > CELL_UM) & (nuclei["y"] < 2 * CELL_UM)
        return np.sort(nuclei[inside], order=["x", "y"])

    assert len(shared(left)) > 50
    assert np.array_equal(shared(left), shared(right))


def test_no_two_nuclei_are_closer_than_their_spacing_allows() -> None:
    nuclei = nuclei_of_cell(draw_look(0, 5, 1500, 1200), 1, 1, 0.0)
    offset = np.stack([nuclei["x"][:, None] - nuclei["x"], nuclei["y"][:, None] - nuclei["y"]], axis=-1)
    distance = np.hypot(offset[..., 0], offset[..., 1])
    bearing = np.arctan2(offset[..., 1], offset[..., 0])

    def radius(axis: int) -> np.ndarray:
        """Radius of the ellipse of one of the pair in the direction of the other."""
        pick = (slice(None), None) if axis == 0 else (None, slice(None))
        angle = bearing - np.arctan2(nuclei["sin"], nuclei["cos"])[pick]
        return 1 / np.sqrt(
            (np.cos(angle) / nuclei["a"][pick]) ** 2 + (np.sin(angle) / nuclei["b"][pick]) ** 2
        )

    spacing = (nuclei["spacing"][:, None] + nuclei["spacing"]) / 2
    too_near = distance < spacing * (radius(0) + radius(1)) * (1 - 1e-9)
    np.fill_diagonal(too_near, False)
    assert len(nuclei) > 500
    assert not too_near.any()


@pytest.mark.parametrize("slide_id", ["demo-1", "demo-2"])
def test_truth_points_lie_in_their_outlines_and_in_the_slide(cohort: Path, slide_id: str) -> None:
    points, outlines = read_truth(cohort, slide_id)
    assert len(points) == len(outlines) > 200
    assert shapely.is_valid(outlines).all()
    assert shapely.contains_properly(outlines, shapely.points(points)).all()
    assert (points >= 0).all()
    assert (points <= [WIDTH - 1, HEIGHT - 1]).all()
    assert shapely.box(0, 0, WIDTH - 1, HEIGHT - 1).contains(shapely.union_all(outlines))


def test_truth_outlines_do_not_overlap(cohort: Path) -> None:
    _, outlines = read_truth(cohort, "demo-2")
    first, second = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    different = first < second
    shared = shapely.area(shapely.intersection(outlines[first[different]], outlines[second[different]]))
    # Vertices are rounded to 0.1 pixels, so borders in common may cross by as much.
    assert shared.max() < 3.0


def test_hidden_nuclei_are_not_in_the_truth(look: Look) -> None:
    """Independent of the outlines' geometry: paint them in order on a fine grid, count what stays visible."""
    (column, row), scale = (0, 0), 8
    cells = nuclei_of_cell(look, column, row, 0.0)
    drawn = outline_points(cells, 48) * scale
    canvas = Image.new("I", (int(CELL_UM) * scale, int(CELL_UM) * scale))
    for label, outline in enumerate(drawn, start=1):
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in outline], fill=label)
    visible = np.bincount(np.asarray(canvas).ravel(), minlength=len(cells) + 1)[1:]
    share = visible / (shapely.area(shapely.polygons(drawn)))
    in_view = (cells["x"] < WIDTH * MPP - 12) & (cells["y"] < HEIGHT * MPP - 12)
    in_view &= (cells["x"] > 12) & (cells["y"] > 12) & (cells["x"] < CELL_UM - 12)
    centers = np.stack([cells["x"], cells["y"]], axis=1) / MPP

    truth = np.concatenate([part.points for part in truth_of_slide(look, MPP, WIDTH, HEIGHT)])
    outlines = np.concatenate([part.outlines for part in truth_of_slide(look, MPP, WIDTH, HEIGHT)])
    is_nucleus = in_view & (cells["kind"] != Kind.RED_CELL)
    seen = is_nucleus & (share > 0.6)
    nearest = np.hypot(*(centers[seen][:, None] - truth).transpose(2, 0, 1)).min(axis=1)
    assert seen.sum() > 300
    assert nearest.max() < 7.0
    hidden = is_nucleus & (share < 0.4)
    areas = shapely.area(shapely.polygons(drawn[hidden] / scale / MPP))
    for center, area in zip(centers[hidden], areas, strict=True):
        around = outlines[np.hypot(*(truth - center).T) < 4]
        assert not np.any(shapely.area(around) < 0.4 * area)


def test_nuclei_are_darker_in_red_than_what_surrounds_them(cohort: Path, pixels: np.ndarray) -> None:
    points, outlines = read_truth(cohort, "demo-2")
    canvas = Image.new("1", (WIDTH, HEIGHT))
    for outline in outlines:
        ImageDraw.Draw(canvas).polygon(list(outline.exterior.coords), fill=1)
    nucleus = np.asarray(canvas)
    contrasts = []
    for x, y in points[::5]:
        left, top = max(int(x) - 16, 0), max(int(y) - 16, 0)
        window = np.s_[top : int(y) + 17, left : int(x) + 17]
        red, inside = pixels[window][..., 0].astype(float), nucleus[window]
        row, column = np.indices(red.shape)
        near = np.hypot(column + left - x, row + top - y) < 3
        contrasts.append(red[~inside].mean() - red[near & inside].mean())
    assert np.median(contrasts) > 40
    assert np.mean(np.array(contrasts) > 10) > 0.95


def test_nuclei_are_as_many_and_as_large_as_in_tissue(cohort: Path, pixels: np.ndarray) -> None:
    _, outlines = read_truth(cohort, "demo-2")
    tissue_mm2 = (pixels.min(axis=2) < 225).sum() * (MPP / 1000) ** 2
    assert 2000 < len(outlines) / tissue_mm2 < 12_000
    diameter_um = np.sqrt(shapely.area(outlines) * 4 / np.pi) * MPP
    assert np.percentile(diameter_um, 5) > 4
    assert np.percentile(diameter_um, 95) < 12


def test_glass_is_bright_and_even(pixels: np.ndarray) -> None:
    corner = pixels[:40, :40].reshape(-1, 3).astype(float)
    assert (corner.mean(axis=0) > 235).all()
    assert (corner.std(axis=0) < 4).all()


def test_beer_lambert_mixing_by_hand() -> None:
    stains = np.array([[0.65, 0.07, 0.0], [0.70, 0.99, 0.0], [0.29, 0.11, 1.0]])
    densities = np.array([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 2.0, 0.25]]], dtype=np.float32)
    light = beer_lambert(densities, stains, np.array([240.0, 200.0, 100.0]))
    assert light[0, 0] == pytest.approx([240, 200, 100])
    assert light[0, 1] == pytest.approx([240 * math.exp(-0.65), 200 * math.exp(-0.70), 100 * math.exp(-0.29)])
    # 0.5 * 0.65 + 2 * 0.07 = 0.465; 0.5 * 0.70 + 2 * 0.99 = 2.33; 0.5 * 0.29 + 2 * 0.11 + 0.25 = 0.615
    assert light[0, 2] == pytest.approx([150.7516, 19.4592, 54.0641], rel=1e-5)


def test_blur_is_a_normalised_gaussian() -> None:
    taps = blur_taps(1.0)
    assert taps[0] + 2 * taps[1:].sum() == pytest.approx(1, abs=1e-6)
    assert taps[2] / taps[0] == pytest.approx(math.exp(-2), rel=1e-5)
    light = np.zeros((7, 7, 3), dtype=np.float32)
    light[3, 3] = 200.0
    seen = expose(light, 0, 0, taps, 0.0, np.uint64(1))
    assert seen.shape == (1, 1, 3)
    assert seen[0, 0, 0] == round(200 * float(taps[0]) ** 2)


def test_sensor_noise_has_the_stated_deviation() -> None:
    light = np.full((402, 402, 3), 120.0, dtype=np.float32)
    seen = expose(light, 0, 0, blur_taps(0.3), 3.0, np.uint64(9)).astype(float)
    assert seen.mean() == pytest.approx(120, abs=0.05)
    assert seen.std() == pytest.approx(3.0, rel=0.03)


def test_noise_is_centred_bounded_and_zero_on_its_lattice() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-500, 500, (2, 20_000))
    values = noise_at(x, y, 7.0, np.uint64(5))
    assert abs(values.mean()) < 0.02
    assert 0.25 < values.std() < 0.5
    assert np.abs(values).max() <= 1.0
    assert gradient_noise(3.0, -8.0, np.uint64(5)) == 0.0


def test_hash_spreads_neighbouring_points() -> None:
    values = {int(lattice_hash(x, y, np.uint64(1))) for x in range(-20, 20) for y in range(-20, 20)}
    assert len(values) == 1600
    bits = np.array([[value >> bit & 1 for bit in range(64)] for value in values])
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.08


def test_halve_takes_the_rounded_mean_of_four() -> None:
    pixels = np.array([[[0], [1], [9]], [[2], [3], [9]], [[9], [9], [9]]], dtype=np.uint8).repeat(3, axis=2)
    assert np.array_equal(halve(pixels), np.full((1, 1, 3), 2, dtype=np.uint8))


def test_small_slides_are_pyramids_too() -> None:
    assert level_sizes(100, 81) == [(100, 81), (50, 40)]
    assert level_sizes(2100, 900)[-1] == (262, 112)


def test_pyramid_keeps_every_pixel_at_any_height(tmp_path: Path) -> None:
    """Heights around multiples of the tiles: no row is lost or repeated when levels pass rows on."""
    for height in (511, 512, 513, 1023, 1025, 1300):
        ramp = np.broadcast_to((np.arange(height) * 200 // height)[:, None, None], (height, 300, 3)).astype(
            np.uint8
        )
        path = tmp_path / f"{height}.svs"
        write_pyramid(path, (ramp[top : top + 256] for top in range(0, height, 256)), 300, height, 0.25)
        with openslide.OpenSlide(path) as slide:
            for level, size in enumerate(slide.level_dimensions):
                seen = np.asarray(slide.read_region((0, 0), level, size).convert("RGB"), dtype=float)
                expected = ramp[: size[1] * 2**level, 0, 0].reshape(size[1], -1).mean(axis=1)
                assert np.abs(seen[..., 1].mean(axis=1) - expected).max() < 2.0, (height, level)


def test_size_is_read_as_one_or_two_numbers() -> None:
    parser = argparse.ArgumentParser()
    demo_slides.configure(parser)
    assert parser.parse_args(["out"]).size == (3000, 2400)
    assert parser.parse_args(["out", "--size", "512"]).size == (512, 512)
    assert parser.parse_args(["out", "--size", "512x300"]).size == (512, 300)
    with pytest.raises(argparse.ArgumentTypeError, match="3000x2400"):
        demo_slides.parse_size("3000,2400")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slides": 0}, "number of slides is 0"),
        ({"width": 10}, "slide size is 10 x 300"),
        ({"mpp": 5.0}, "mpp is 5; expected 0.1 to 1.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, change: dict[str, float], message: str) -> None:
    arguments = {"slides": 1, "width": 300, "height": 300, "mpp": 0.5, "seed": 0} | change
    with pytest.raises(KaryonError, match=message):
        render_cohort(tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
