"""Annotation readers: each format gives the same nuclei, each malformed file an error that helps."""

from __future__ import annotations

import csv
import gzip
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import shapely
import tifffile
from PIL import Image
from scipy import ndimage

from karyon.errors import SlideError
from karyon.evaluation.matching import match_points
from karyon.io.annotations import (
    ANNOTATION_FORMATS,
    OUTLINE_FORMATS,
    instance_points,
    read_instances,
    read_label_map,
    read_outlines,
    read_points,
)
from karyon.io.annotations.instances import INSTANCE_FORMATS

DATA = Path(os.environ.get("KARYON_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(not (DATA / "kumar30").is_dir(), reason=f"no real data under {DATA}")

# Two nuclei on 6 x 5 pixels, ids not consecutive: pixels (1, 1), (2, 1), (1, 2) and (4, 3).
MAP = np.zeros((5, 6), dtype=np.uint16)
MAP[1, 1] = MAP[1, 2] = MAP[2, 1] = 300
MAP[3, 4] = 7
MAP_POINTS = [[4, 3], [4 / 3, 4 / 3]]  # in the order of their ids


def write_map(path: Path, annotation_format: str, array: np.ndarray) -> Path:
    if annotation_format == "instance_png":
        Image.fromarray(array).save(path, format="png")
    elif annotation_format == "instance_tiff":
        tifffile.imwrite(path, array, compression="zlib", photometric="minisblack")
    elif annotation_format == "instance_npy":
        with path.open("wb") as stream:
            np.save(stream, array)
    else:
        with path.open("wb") as stream:
            scipy.io.savemat(stream, {"inst_map": array, "inst_type": np.zeros((9, 1))}, do_compression=True)
    return path


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def xml(*regions: str, name: str = "") -> str:
    return (
        f'<Annotations><Annotation Id="1" Name="{name}"><Regions>{"".join(regions)}'
        "</Regions></Annotation></Annotations>"
    )


def region(number: int, vertices: list[tuple[float, float]], extra: str = "") -> str:
    inside = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in vertices)
    return f'<Region Id="{number}" {extra}><Vertices>{inside}</Vertices></Region>'


def feature(kind: str, coordinates: Any, **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties,
    }


def closed(vertices: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [*vertices, vertices[0]]


# An L of three unit squares (centroid 5/6, 5/6) and a square of side 2 about (11, 6).
ELL = [(0.0, 0.0), (2.0, 0.0), (2.0, 1.0), (1.0, 1.0), (1.0, 2.0), (0.0, 2.0)]
SQUARE = [(10.0, 5.0), (12.0, 5.0), (12.0, 7.0), (10.0, 7.0)]
BOWTIE = [(0.0, 0.0), (4.0, 4.0), (4.0, 0.0), (0.0, 4.0)]


# ---- Instance maps


@pytest.mark.parametrize("annotation_format", INSTANCE_FORMATS)
def test_every_instance_format_gives_the_mean_position_of_the_pixels(
    annotation_format: str, tmp_path: Path
) -> None:
    path = write_map(tmp_path / "map", annotation_format, MAP)
    annotations = read_points(path, annotation_format, (6, 5))
    np.testing.assert_allclose(annotations.points, MAP_POINTS, rtol=1e-15)
    assert annotations.class_name == (None, None)
    np.testing.assert_array_equal(read_instances(path, annotation_format), MAP)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64])
def test_whole_numbers_of_any_type_are_ids(dtype: type, tmp_path: Path) -> None:
    small = (MAP % 200).astype(dtype)
    path = write_map(tmp_path / "map.mat", "instance_mat", small)
    np.testing.assert_array_equal(read_instances(path, "instance_mat"), small)


def test_huge_ids_are_renumbered_in_their_order(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.npy", "instance_npy", MAP.astype(np.uint64) * 2**40)
    instances = read_instances(path, "instance_npy")
    assert instances.dtype == np.int32
    np.testing.assert_array_equal(instances, np.where(MAP == 300, 2, MAP // 7))


def test_centroids_equal_those_of_ndimage_on_random_maps() -> None:
    rng = np.random.default_rng(0)
    instances = rng.integers(0, 50, (2500, 30)).astype(np.int32)
    present = np.unique(instances[instances > 0])
    expected = np.array(ndimage.center_of_mass(instances > 0, instances, present))[:, ::-1]
    np.testing.assert_allclose(instance_points(instances), expected, rtol=1e-12)


def test_a_map_without_nuclei_has_no_points(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.png", "instance_png", np.zeros((5, 6), np.uint8))
    assert read_points(path, "instance_png", (6, 5)).points.shape == (0, 2)


def test_an_instance_map_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.png", "instance_png", MAP)
    with pytest.raises(SlideError, match=r"map\.png: the instance map has 6 x 5 pixels, the slide 5 x 6"):
        read_points(path, "instance_png", (5, 6))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
def test_a_png_that_is_not_gray_is_refused(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "overlay.png"
    Image.new(mode, (6, 5)).save(path)
    with pytest.raises(
        SlideError, match=rf"overlay\.png: pixel type {mode} is not gray; expected an 8- or 16"
    ):
        read_points(path, "instance_png", None)


@pytest.mark.parametrize("side", [12_000, 17_000], ids=["Pillow warns", "Pillow refuses"])
def test_a_png_that_promises_too_many_pixels_is_refused_unread(side: int, tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 16, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    )
    with pytest.raises(SlideError, match=r"bomb\.png"):
        read_points(path, "instance_png", None)


def test_a_tiff_of_several_images_is_refused_and_a_pyramid_is_read(tmp_path: Path) -> None:
    path = write_map(tmp_path / "stack", "instance_tiff", np.zeros((4, 5, 6), np.uint8))
    with pytest.raises(SlideError, match="stack: several images of one size; expected one instance map"):
        read_points(path, "instance_tiff", None)
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as writer:
        writer.write(MAP, photometric="minisblack")
        writer.write(MAP[::2, ::2], photometric="minisblack", subfiletype=1)
    np.testing.assert_array_equal(read_instances(tmp_path / "pyramid.tif", "instance_tiff"), MAP)


@pytest.mark.parametrize("annotation_format", ["instance_npy", "instance_mat"])
def test_a_map_of_three_dimensions_is_refused(annotation_format: str, tmp_path: Path) -> None:
    path = write_map(tmp_path / "stack", annotation_format, np.zeros((4, 5, 6), np.uint8))
    with pytest.raises(
        SlideError, match=r"stack: holds uint8 values of shape \(4, 5, 6\); expected .*height"
    ):
        read_points(path, annotation_format, None)


@pytest.mark.parametrize("annotation_format", ["instance_tiff", "instance_npy", "instance_mat"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-3.0, "is -3; expected ids of 0 or more"),
        (0.5, "is 0.5; expected whole"),
        (np.nan, "is nan; expected"),
    ],
)
def test_a_value_that_is_no_id_is_refused_with_its_place(
    annotation_format: str, value: float, message: str, tmp_path: Path
) -> None:
    array = MAP.astype(np.float32)
    array[3, 2] = value
    path = write_map(tmp_path / "map", annotation_format, array)
    with pytest.raises(SlideError, match=f"map: the value at x 2, y 3 {message}"):
        read_points(path, annotation_format, None)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(SlideError, match=r"objects\.npy: not a plain NumPy array"):
        read_points(path, "instance_npy", None)


def test_an_npy_header_that_promises_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.npy", "instance_npy", MAP)
    path.write_bytes(path.read_bytes().replace(b"(5, 6), }", b"(50000, 60000), }")[:140])
    with pytest.raises(SlideError, match=r"map\.npy: not a plain NumPy array"):
        read_points(path, "instance_npy", None)


def test_an_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "map.npz", MAP)
    with pytest.raises(SlideError, match=r"an npz archive; expected a single array"):
        read_points(tmp_path / "map.npz", "instance_npy", None)


def test_the_only_matrix_of_a_matlab_file_is_taken_whatever_its_name(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"labels": MAP, "note": "by hand"})
    np.testing.assert_array_equal(read_instances(tmp_path / "a.mat", "instance_mat"), MAP)


def test_a_matlab_file_with_two_candidates_lists_them(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "two.mat", {"a": MAP, "b": MAP})
    with pytest.raises(
        SlideError, match=r"two\.mat: 2 variables .*'inst_map'.*a \(5, 6\) uint16, b \(5, 6\)"
    ):
        read_instances(tmp_path / "two.mat", "instance_mat")


@pytest.mark.parametrize("annotation_format", ["instance_mat", "points_mat"])
def test_matlab_7_3_is_refused_with_the_way_out(annotation_format: str, tmp_path: Path) -> None:
    path = tmp_path / "new.mat"
    # The 128-byte header of a 7.3 file (version 0x0200), then HDF5.
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" + bytes(600))
    with pytest.raises(SlideError, match=r"new\.mat: a MATLAB 7\.3 \(HDF5\) file.*'-v7'"):
        read_points(path, annotation_format, None)


def test_a_matlab_file_that_crashes_the_reader_is_refused(tmp_path: Path) -> None:
    # The first tag of the values names a data type that does not exist; scipy follows it out of its table.
    scipy.io.savemat(tmp_path / "a.mat", {"detection": np.array([[1.5, 2.5]])})
    content = (tmp_path / "a.mat").read_bytes()
    values = content.index(struct.pack("<II", 9, 16))
    (tmp_path / "a.mat").write_bytes(content[:values] + struct.pack("<I", 60_000) + content[values + 4 :])
    with pytest.raises(SlideError, match=r"a\.mat: not a MATLAB file that can be read"):
        read_points(tmp_path / "a.mat", "points_mat", None)


def test_training_on_points_is_refused_with_the_formats_that_serve(tmp_path: Path) -> None:
    with pytest.raises(
        SlideError, match=r"'points_csv'; an instance map is needed here, one of instance_png"
    ):
        read_instances(tmp_path / "a.csv", "points_csv")


# ---- Outlines


def test_imagescope_regions_become_area_centroids_with_the_name_of_their_layer(tmp_path: Path) -> None:
    hole = region(3, SQUARE, extra='NegativeROA="1"')
    path = write(tmp_path / "a.xml", xml(region(1, ELL), region(2, SQUARE), hole, name="tumour"))
    annotations = read_points(path, "imagescope_xml", (20, 10))
    np.testing.assert_allclose(annotations.points, [[5 / 6, 5 / 6], [11, 6]])
    assert annotations.class_name == ("tumour", "tumour")


def test_geojson_gives_points_and_area_centroids_with_their_class(tmp_path: Path) -> None:
    features = [
        feature("Point", [3, 4], classification={"name": "Tumor", "color": [200, 0, 0]}),
        feature("MultiPoint", [[5, 6], [7, 8]], classification={"name": "Stroma"}),
        feature("Polygon", [closed(ELL)]),
        # A square of area 16 about (2, 2) with a hole of area 4 about (1, 2): x = (16*2 - 4*1) / 12.
        feature(
            "Polygon", [closed([(0, 0), (4, 0), (4, 4), (0, 4)]), closed([(0, 1), (2, 1), (2, 3), (0, 3)])]
        ),
        # Area 4 about (11, 6) and area 3 about (5/6, 5/6): one nucleus.
        feature("MultiPolygon", [[closed(SQUARE)], [closed(ELL)]], classification=None),
    ]
    features[-1]["id"] = "c4a1"
    path = write(tmp_path / "a.geojson", json.dumps({"type": "FeatureCollection", "features": features}))
    annotations = read_points(path, "geojson", (20, 10))
    joint = [(4 * 11 + 3 * 5 / 6) / 7, (4 * 6 + 3 * 5 / 6) / 7]
    np.testing.assert_allclose(
        annotations.points, [[3, 4], [5, 6], [7, 8], [5 / 6, 5 / 6], [28 / 12, 2], joint]
    )
    assert annotations.class_name == ("Tumor", "Stroma", "Stroma", None, None, None)


@pytest.mark.parametrize("form", ["list", "single"])
def test_geojson_may_be_a_list_or_a_single_feature(form: str, tmp_path: Path) -> None:
    one = feature("Point", [3, 4])
    path = write(tmp_path / "a.json", json.dumps([one] if form == "list" else one))
    assert read_points(path, "geojson", None).points.tolist() == [[3, 4]]


def test_of_a_qupath_cell_the_nucleus_is_taken(tmp_path: Path) -> None:
    cell = feature("Polygon", [closed([(0, 0), (40, 0), (40, 40), (0, 40)])], objectType="cell")
    cell["nucleusGeometry"] = {"type": "Polygon", "coordinates": [closed(SQUARE)]}
    path = write(tmp_path / "cells.geojson", json.dumps([cell]))
    assert read_points(path, "geojson", None).points.tolist() == [[11, 6]]


@pytest.mark.parametrize(
    ("annotation_format", "text"),
    [("geojson", json.dumps([feature("Point", [3, 4])])), ("points_csv", "x,y\n3,4\n")],
)
def test_gzipped_text_is_read(annotation_format: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert read_points(path, annotation_format, None).points.tolist() == [[3, 4]]


def test_a_freehand_outline_that_crosses_itself_by_a_sliver_is_kept(tmp_path: Path) -> None:
    # A square about (11, 6) whose last stroke overshoots its first by a loop of area 0.01.
    sliver = [(10.0, 5.0), (12.0, 5.0), (12.0, 7.0), (10.0, 7.0), (10.0, 4.9), (9.9, 4.9), (10.1, 5.1)]
    path = write(tmp_path / "a.xml", xml(region(1, sliver)))
    np.testing.assert_allclose(read_points(path, "imagescope_xml", None).points, [[11, 6]], atol=0.05)


OUTLINE_FAULTS: list[tuple[list[tuple[float, float]], str]] = [
    (BOWTIE, "crosses itself and falls into parts"),
    ([(0.0, 0.0), (1.0, 1.0)], "an outline of 2 vertices; expected 3 or more"),
    ([], "an outline of 0 vertices; expected 3 or more"),
    ([(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)], "encloses no area"),
    ([(5.0, 5.0)] * 4, "encloses no area"),
    ([(0.0, 0.0), (float("nan"), 1.0), (2.0, 0.0)], "a vertex is not finite"),
    ([(0.0, 0.0), (float("inf"), 1.0), (2.0, 0.0)], "a vertex is not finite"),
]


@pytest.mark.parametrize(("vertices", "message"), OUTLINE_FAULTS)
def test_a_faulty_region_is_refused_by_its_id(
    vertices: list[tuple[float, float]], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.xml", xml(region(1, SQUARE), region(23, vertices)))
    with pytest.raises(SlideError, match=rf"a\.xml, annotation 1, region 23: .*{message}"):
        read_points(path, "imagescope_xml", None)


@pytest.mark.parametrize(("vertices", "message"), OUTLINE_FAULTS)
@pytest.mark.parametrize("kind", ["Polygon", "MultiPolygon"])
def test_a_faulty_feature_is_refused_by_its_number(
    kind: str, vertices: list[tuple[float, float]], message: str, tmp_path: Path
) -> None:
    rings = [vertices] if kind == "Polygon" else [[vertices]]
    path = write(tmp_path / "a.geojson", json.dumps([feature("Point", [1, 1]), feature(kind, rings)]))
    with pytest.raises(SlideError, match=rf"a\.geojson, feature 2: .*{message}"):
        read_points(path, "geojson", None)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (feature("LineString", [[0, 0], [1, 1]]), "feature 1: geometry 'LineString'; expected Point"),
        ({"type": "Feature", "geometry": None}, "feature 1: its geometry is malformed"),
        (feature("Point", [1]), "feature 1: its geometry is malformed"),
        (feature("Point", ["left", 2]), "feature 1: its geometry is malformed"),
        (feature("Point", [10**400, 2]), "feature 1: its geometry is malformed"),
        (feature("Polygon", []), "feature 1: its geometry is malformed"),
        (feature("Polygon", 5), "feature 1: its geometry is malformed"),
        (feature("MultiPolygon", []), "feature 1: geometry 'MultiPolygon'"),
        (["a"], "feature 1: its geometry is malformed"),
        (
            {"type": "Topology"},
            "expected a FeatureCollection, a list of features or one feature, not 'Topology'",
        ),
        (3, "expected a FeatureCollection"),
        ({"type": "FeatureCollection", "features": None}, "expected a FeatureCollection"),
    ],
)
def test_geojson_of_another_kind_is_refused(document: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.geojson", json.dumps(document))
    with pytest.raises(SlideError, match=message):
        read_points(path, "geojson", None)


@pytest.mark.parametrize(
    "declaration",
    ['<!ENTITY a "ha">', '<!ENTITY a SYSTEM "file:///etc/passwd">'],
    ids=["expansion", "external"],
)
def test_xml_entities_are_refused(declaration: str, tmp_path: Path) -> None:
    text = f"<!DOCTYPE Annotations [{declaration}]>" + xml(region(1, SQUARE), name="&a;")
    path = write(tmp_path / "hostile.xml", text)
    with pytest.raises(SlideError, match=r"hostile\.xml: declares entities or external references"):
        read_points(path, "imagescope_xml", None)


def test_other_xml_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", "<ASAP_Annotations/>")
    with pytest.raises(SlideError, match=r"a\.xml: the outermost element is not <Annotations>"):
        read_points(path, "imagescope_xml", None)


@pytest.mark.parametrize("vertex", ['<Vertex X="1"/>', '<Vertex X="1" Y="two"/>'])
def test_a_vertex_without_a_number_is_refused(vertex: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", xml(f'<Region Id="4"><Vertices>{vertex}</Vertices></Region>'))
    with pytest.raises(SlideError, match="region 4: a vertex lacks a number X or Y"):
        read_points(path, "imagescope_xml", None)


def write_outlines(path: Path, annotation_format: str, *outlines: list[tuple[float, float]]) -> Path:
    if annotation_format == "imagescope_xml":
        regions = [region(number, outline) for number, outline in enumerate(outlines, start=1)]
        return write(path, xml(*regions, name="tumour"))
    classification = {"name": "tumour"}
    features = [feature("Polygon", [closed(each)], classification=classification) for each in outlines]
    return write(path, json.dumps(features))


@pytest.mark.parametrize("annotation_format", OUTLINE_FORMATS)
def test_outlines_are_read_as_areas_with_their_class(annotation_format: str, tmp_path: Path) -> None:
    path = write_outlines(tmp_path / "a", annotation_format, ELL, SQUARE)
    outlines = read_outlines(path, annotation_format, (20, 10))
    assert [area.area for area in outlines.areas] == [3, 4]
    assert outlines.areas[1].equals(shapely.box(10, 5, 12, 7))
    assert outlines.class_name == ("tumour", "tumour")
    assert outlines.holes == ()


def test_holes_and_parts_of_a_feature_belong_to_its_area(tmp_path: Path) -> None:
    inner = closed([(0.5, 0.5), (1.5, 0.5), (1.5, 1.5), (0.5, 1.5)])
    outer = closed([(0, 0), (2, 0), (2, 2), (0, 2)])
    features = [feature("Polygon", [outer, inner]), feature("MultiPolygon", [[closed(SQUARE)], [outer]])]
    path = write(tmp_path / "a.geojson", json.dumps(features))
    assert [area.area for area in read_outlines(path, "geojson", None).areas] == [3, 8]


def test_regions_that_imagescope_marks_as_negative_are_holes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", xml(region(1, ELL), region(2, SQUARE, extra='NegativeROA="1"')))
    outlines = read_outlines(path, "imagescope_xml", None)
    assert [area.area for area in outlines.areas] == [3]
    assert [hole.area for hole in outlines.holes] == [4]


@pytest.mark.parametrize("annotation_format", OUTLINE_FORMATS)
def test_outlines_have_the_centroids_that_are_read_as_points(annotation_format: str, tmp_path: Path) -> None:
    path = write_outlines(tmp_path / "a", annotation_format, SQUARE, ELL)
    areas = read_outlines(path, annotation_format, (100, 100), scale=3.0).areas
    points = read_points(path, annotation_format, (100, 100), scale=3.0).points
    np.testing.assert_allclose([(area.centroid.x, area.centroid.y) for area in areas], points)


@pytest.mark.parametrize("annotation_format", OUTLINE_FORMATS)
def test_outlines_of_another_slide_are_refused(annotation_format: str, tmp_path: Path) -> None:
    path = write_outlines(tmp_path / "a", annotation_format, ELL, SQUARE)
    message = (
        r"a: 1 of 2 annotations lie outside the slide of 5 x 5 pixels, the first is number 2 at x 11, y 6"
    )
    with pytest.raises(SlideError, match=message):
        read_outlines(path, annotation_format, (5, 5))


def test_a_file_without_outlines_has_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.geojson", "[]")
    assert read_outlines(path, "geojson", (5, 5)).areas == ()


def test_where_outlines_are_needed_points_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.geojson", json.dumps([feature("Point", [1, 1])]))
    with pytest.raises(SlideError, match=r"a\.geojson, feature 1: a point; an outline is needed here"):
        read_outlines(path, "geojson", None)
    with pytest.raises(SlideError, match=r"'points_csv'; outlines are needed here, one of imagescope_xml"):
        read_outlines(path, "points_csv", None)


# ---- Annotations at another resolution


@pytest.mark.parametrize("annotation_format", ["points_csv", "points_mat", "geojson", "imagescope_xml"])
def test_points_are_scaled_about_the_corner_of_the_image(annotation_format: str, tmp_path: Path) -> None:
    # Pixel (11, 6) at a quarter of the resolution covers 44 to 47 and 24 to 27, centres 45.5 and 25.5.
    path = tmp_path / "a"
    if annotation_format == "points_csv":
        write(path, csv_of([(11, 6)]))
    elif annotation_format == "points_mat":
        with path.open("wb") as stream:
            scipy.io.savemat(stream, {"detection": np.array([[11.0, 6.0]])})
    else:
        write_outlines(path, annotation_format, SQUARE)
    assert read_points(path, annotation_format, (80, 40), scale=4.0).points.tolist() == [[45.5, 25.5]]


def test_scaled_outlines_cover_the_enlarged_pixels(tmp_path: Path) -> None:
    # Corners of pixels 3 to 5: -0.5 beyond their centres. At twice the resolution these are pixels 6 to 11.
    corners = [(2.5, 2.5), (5.5, 2.5), (5.5, 5.5), (2.5, 5.5)]
    path = write_outlines(tmp_path / "a", "geojson", corners)
    (area,) = read_outlines(path, "geojson", (20, 20), scale=2.0).areas
    assert area.equals(shapely.box(5.5, 5.5, 11.5, 11.5))


@pytest.mark.parametrize("factor", [2, 3])
def test_a_map_at_another_resolution_is_the_map_with_larger_pixels(factor: int, tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.png", "instance_png", MAP)
    large = np.kron(MAP, np.ones((factor, factor), np.uint16))
    size = (6 * factor, 5 * factor)
    np.testing.assert_array_equal(read_label_map(path, "instance_png", size, scale=factor), large)
    points = read_points(path, "instance_png", size, scale=factor).points
    np.testing.assert_allclose(points, instance_points(large.astype(np.int32)), rtol=1e-12)


def test_a_finer_map_gives_each_pixel_the_id_at_its_centre(tmp_path: Path) -> None:
    fine = np.kron(MAP, np.ones((3, 3), np.uint16))
    path = write_map(tmp_path / "map.png", "instance_png", fine)
    np.testing.assert_array_equal(read_label_map(path, "instance_png", (6, 5), scale=1 / 3), MAP)
    points = read_points(path, "instance_png", (6, 5), scale=1 / 3).points
    np.testing.assert_allclose(points, MAP_POINTS, rtol=1e-12)


def test_a_map_is_scaled_by_its_size_where_the_resolutions_are_a_little_off(tmp_path: Path) -> None:
    # 0.5 and 0.2522 microns per pixel, in truth every second pixel: the far corner's centre stays in place.
    large = np.zeros((300, 400), np.uint16)
    large[-1, -1] = 1
    path = write_map(tmp_path / "map.png", "instance_png", large)
    points = read_points(path, "instance_png", (800, 600), scale=0.5 / 0.2522).points
    np.testing.assert_allclose(points, [[798.5, 598.5]], rtol=1e-12)


@pytest.mark.parametrize("read", [read_points, read_label_map])
def test_a_map_of_a_size_that_its_resolution_does_not_explain_is_refused(
    read: Callable[..., Any], tmp_path: Path
) -> None:
    path = write_map(tmp_path / "map.png", "instance_png", np.zeros((300, 400), np.uint8))
    # The proportions alone are no reason to stretch it.
    with pytest.raises(SlideError, match=r"400 x 300 pixels, the slide 800 x 600; they must be equal.*_mpp"):
        read(path, "instance_png", (800, 600))
    with pytest.raises(SlideError, match="400 x 300 pixels; the slide of 800 x 600 has 200 x 150 at"):
        read(path, "instance_png", (800, 600), scale=4.0)
    with pytest.raises(SlideError, match="400 x 300 pixels; the slide of 800 x 700 has 400 x 350 at"):
        read(path, "instance_png", (800, 700), scale=2.0)


def test_a_map_is_not_stretched_over_a_slide_that_no_memory_holds(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.png", "instance_png", np.zeros((100, 100), np.uint8))
    with pytest.raises(SlideError, match=r"an instance map of 100000 x 100000 pixels; at most"):
        read_label_map(path, "instance_png", (100_000, 100_000), scale=1000.0)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("read", [read_points, read_outlines, read_label_map])
def test_a_scale_that_is_none_is_refused(read: Callable[..., Any], scale: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a finite number above 0"):
        read(tmp_path / "a", "geojson", (5, 5), scale)


# ---- Points


def test_points_csv_takes_its_columns_by_name(tmp_path: Path) -> None:
    text = '\ufeffnote,y, x ,class\r\n"a, b",2.5,1,epithelial\r\n\r\n,4,3e1, \r\n'
    annotations = read_points(write(tmp_path / "a.csv", text), "points_csv", (100, 10))
    assert annotations.points.tolist() == [[1, 2.5], [30, 4]]
    assert annotations.class_name == ("epithelial", None)


def test_points_csv_may_hold_no_point(tmp_path: Path) -> None:
    annotations = read_points(write(tmp_path / "a.csv", "x,y\n"), "points_csv", (10, 10))
    assert annotations.points.shape == (0, 2)
    assert annotations.class_name == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n3,4\n", r"a\.csv: the header is '1,2'; expected comma-separated columns x, y"),
        ("x;y\n3;4\n", r"the header is 'x;y'"),
        ("x,x,y\n3,4,5\n", r"the header is 'x,x,y'"),
        ("x,y\n1,2\n3\n", r"a\.csv, line 3: 1 values; expected 2"),
        ("x,y\n1,2,3\n", r"line 2: 3 values; expected 2"),
        ("x,y\n1,\n", r"line 2: y is ''; expected level-0 pixels"),
        ('x,y\n"0,5",1\n', r"line 2: x is '0,5'"),
        (
            "x,y\n1,1\n2,inf\n",
            r"1 of 2 annotations have a coordinate that is not finite, the first is number 2",
        ),
    ],
)
def test_a_malformed_points_csv_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=message):
        read_points(write(tmp_path / "a.csv", text), "points_csv", None)


@pytest.mark.parametrize("name", ["detection", "anything"])
def test_points_mat_takes_detection_or_the_only_two_columns(name: str, tmp_path: Path) -> None:
    other = np.zeros((3, 2)) if name == "detection" else np.zeros((3, 3))
    scipy.io.savemat(tmp_path / "a.mat", {name: np.array([[1.5, 2], [3, 4], [5, 6]]), "other": other})
    annotations = read_points(tmp_path / "a.mat", "points_mat", (10, 10))
    assert annotations.points.tolist() == [[1.5, 2], [3, 4], [5, 6]]
    assert annotations.class_name == (None, None, None)


def test_an_empty_detection_has_no_points(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"detection": np.zeros((0, 0))})
    assert read_points(tmp_path / "a.mat", "points_mat", (10, 10)).points.shape == (0, 2)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"detection": np.zeros((4, 3))},
            r"'detection' holds float64 values of shape \(4, 3\); expected an array of N x 2",
        ),
        ({"detection": "text"}, r"'detection' is of type char; expected an array of N x 2 numbers"),
        ({"detection": np.zeros((4, 2), complex)}, r"'detection' holds complex128 values"),
        ({"a": np.zeros((4, 3))}, r"0 variables could be meant; expected one called 'detection'"),
        ({}, "The file holds: nothing"),
    ],
)
def test_points_mat_without_two_columns_is_refused(
    variables: dict[str, Any], message: str, tmp_path: Path
) -> None:
    scipy.io.savemat(tmp_path / "a.mat", variables)
    with pytest.raises(SlideError, match=message):
        read_points(tmp_path / "a.mat", "points_mat", None)


# ---- Any format


def csv_of(points: list[tuple[float, float]]) -> str:
    return "x,y\n" + "".join(f"{x},{y}\n" for x, y in points)


def test_points_a_little_outside_are_kept_and_further_ones_refused_with_an_example(tmp_path: Path) -> None:
    # Ten pixels span -0.5 to 9.5.
    near = write(tmp_path / "near.csv", csv_of([(-1.5, 0), (10.5, 9), (0, 10.5)]))
    assert len(read_points(near, "points_csv", (10, 10)).points) == 3
    far = write(tmp_path / "far.csv", csv_of([(1, 1), (10.6, 1), (1, -1.6)]))
    message = (
        r"far\.csv: 2 of 3 annotations lie outside the slide of 10 x 10 pixels, "
        r"the first is number 2 at x 10\.6"
    )
    with pytest.raises(SlideError, match=message):
        read_points(far, "points_csv", (10, 10))
    assert len(read_points(far, "points_csv", None).points) == 3


@pytest.mark.parametrize("annotation_format", ANNOTATION_FORMATS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the annotation file cannot be read .*No such file"),
        (b"", r"the annotation file is empty \(0 bytes\)"),
        (bytes(range(256)) * 4, "(not|header)"),
    ],
    ids=["missing", "empty", "garbage"],
)
def test_every_format_refuses_a_file_that_is_none(
    annotation_format: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SlideError, match=f"{path}: {message}"):
        read_points(path, annotation_format, None)


@pytest.mark.parametrize("annotation_format", [*INSTANCE_FORMATS, "imagescope_xml", "geojson"])
def test_every_format_refuses_a_file_cut_short(annotation_format: str, tmp_path: Path) -> None:
    writers: dict[str, Callable[[Path], Path]] = {
        "imagescope_xml": lambda path: write(path, xml(*[region(n, SQUARE) for n in range(20)])),
        "geojson": lambda path: write(path, json.dumps([feature("Point", [n, n]) for n in range(20)])),
    }
    noise = np.random.default_rng(0).integers(0, 999, (64, 64)).astype(np.uint16)
    make = writers.get(annotation_format, lambda path: write_map(path, annotation_format, noise))
    path = make(tmp_path / "cut")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(SlideError, match="cut: not "):
        read_points(path, annotation_format, None)


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        SlideError, match=r"unknown annotation_format 'xml'; expected one of instance_png, .*points"
    ):
        read_points(tmp_path / "a.xml", "xml", None)


# ---- Real files


@needs_data
@pytest.mark.parametrize("name", ["kumar30", "cpm15", "gbm40", "crchisto"])
def test_every_file_of_a_real_set_is_read_and_lies_on_its_image(name: str) -> None:
    known = {"kumar30": 16_942, "cpm15": 2_905, "gbm40": 5_334, "crchisto": 29_756}  # counted in the README
    with (DATA / name / f"{name}.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    count = 0
    for row in rows:
        with Image.open(DATA / name / row["image"]) as image:
            size = image.size
        count += len(read_points(DATA / name / row["annotations"], row["annotation_format"], size).points)
    assert count == known[name]


@needs_data
@pytest.mark.parametrize("path", sorted((DATA / "kumar30" / "xml").glob("*.xml")), ids=lambda path: path.stem)
def test_real_outlines_and_the_instance_map_made_of_them_agree(path: Path) -> None:
    outlines = read_points(path, "imagescope_xml", (1000, 1000)).points
    instances = DATA / "kumar30" / "instances" / f"{path.stem}.png"
    pixels = read_points(instances, "instance_png", (1000, 1000)).points
    matches = match_points(outlines, pixels, 16)
    assert len(matches.predicted) == len(outlines) == len(pixels)
    # Overlaps are drawn once in the map, so a few nuclei differ by some pixels; most by a tenth.
    assert np.median(matches.distance) < 0.15
    shift = outlines[matches.predicted] - pixels[matches.truth]
    np.testing.assert_allclose(np.median(shift, axis=0), 0, atol=0.05)


@needs_data
def test_real_outlines_enclose_the_pixels_of_the_instance_map_made_of_them() -> None:
    path = min((DATA / "kumar30" / "xml").glob("*.xml"))
    areas = read_outlines(path, "imagescope_xml", (1000, 1000)).areas
    instances = DATA / "kumar30" / "instances" / f"{path.stem}.png"
    labels = read_label_map(instances, "instance_png", (1000, 1000))
    pixels = np.bincount(labels[labels > 0])
    points = instance_points(labels)
    matches = match_points(shapely.get_coordinates(shapely.centroid(areas)), points, 16)
    enclosed = shapely.area(areas)[matches.predicted]
    counted = pixels[pixels > 0][matches.truth]
    # The map also holds the pixels that the outline itself runs through.
    assert np.median(counted / enclosed) == pytest.approx(1.0, abs=0.1)
    assert np.corrcoef(enclosed, counted)[0, 1] > 0.98
