"""Nuclei written as outlines: Aperio ImageScope XML and QuPath GeoJSON."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import shapely
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse
from shapely.geometry.base import BaseGeometry

from karyon.errors import SlideError
from karyon.io.annotations.files import check_readable
from karyon.io.annotations.points import PointList

# Most freehand outlines cross themselves at a vertex or two (70 to 80 % in the MoNuSeg files), which leaves
# slivers: the largest part kept 98.6 % of the area or more. One that falls into halves is a mistake.
LARGEST_SHARE = 0.9
# A gzipped file may say anything of its size; the text of ten million nuclei is about this long.
MAX_REPAIRS = 3
MAX_TEXT_BYTES = 4 * 1024**3


Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Outlines:
    """Annotated nuclei as areas, in the order of the file.

    Attributes:
        areas: A valid Polygon or MultiPolygon of each nucleus, in the file's pixels.
        class_name: Class of each as the file names it, ``None`` where it names none.
        holes: Areas that ImageScope marks as negative: they are no nuclei, and a region leaves them out.
    """

    areas: tuple[BaseGeometry, ...]
    class_name: tuple[str | None, ...]
    holes: tuple[BaseGeometry, ...] = ()


def read_imagescope(path: Path) -> PointList:
    """Area centroids of the regions of an Aperio ImageScope file; the class is the name of their layer.

    Regions marked ``NegativeROA`` are holes, not nuclei, and are left out.

    Raises:
        SlideError: The file is unreadable or not such XML, uses entities, or a region is no outline.
    """
    outlines = read_imagescope_outlines(path)
    return [_centroid(area) for area in outlines.areas], outlines.class_name


def read_imagescope_outlines(path: Path) -> Outlines:
    """The regions of an Aperio ImageScope file; the class is the name of their layer.

    Raises:
        SlideError: As in :func:`read_imagescope`.
    """
    areas, names, holes = [], [], []
    for layer, region, where in _regions(path):
        area = _outline(_vertices(region, where), where)
        if region.get("NegativeROA") == "1":
            holes.append(area)
        else:
            areas.append(area)
            names.append(layer.get("Name") or None)
    return Outlines(tuple(areas), tuple(names), tuple(holes))


def _regions(path: Path) -> Iterator[tuple[Element, Element, str]]:
    """Layer, region, and where it is for messages."""
    check_readable(path)
    try:
        root = parse(path).getroot()
    except DefusedXmlException as error:
        raise SlideError(
            f"{path}: declares entities or external references, which are refused ({error}); remove them."
        ) from error
    except (OSError, ParseError, ValueError, LookupError) as error:
        raise SlideError(f"{path}: not XML that can be parsed ({error}); export it again.") from error
    if root is None or root.tag != "Annotations":
        raise SlideError(
            f"{path}: the outermost element is not <Annotations>; expected XML as ImageScope saves it."
        )
    for number, layer in enumerate(root.iter("Annotation"), start=1):
        for region in layer.iter("Region"):
            where = f"{path}, annotation {layer.get('Id', number)}, region {region.get('Id', '(no Id)')}"
            yield layer, region, where


def _vertices(region: Element, where: str) -> list[Point]:
    try:
        return [(float(vertex.attrib["X"]), float(vertex.attrib["Y"])) for vertex in region.iter("Vertex")]
    except (KeyError, ValueError) as error:
        raise SlideError(f"{where}: a vertex lacks a number X or Y ({error}); expected both.") from error


def read_geojson(path: Path) -> PointList:
    """Points and area centroids of a GeoJSON file, plain or gzipped, as QuPath writes it.

    A FeatureCollection, a list of features or a single feature. Each Point, each point of a MultiPoint, each
    Polygon and each MultiPolygon is a nucleus; of a QuPath cell its ``nucleusGeometry`` is taken. The class
    is ``properties.classification.name``.

    Raises:
        SlideError: The file is unreadable or not such JSON, or a feature is none of these.
    """
    positions: list[Point] = []
    names: list[str | None] = []
    for shape, name, _ in geojson_shapes(path):
        positions.append(shape if isinstance(shape, tuple) else _centroid(shape))
        names.append(name)
    return positions, names


def read_geojson_outlines(path: Path) -> Outlines:
    """The areas of a GeoJSON file, as in :func:`read_geojson`.

    Raises:
        SlideError: As there, or a feature is a point.
    """
    areas, names = [], []
    for shape, name, where in geojson_shapes(path):
        if isinstance(shape, tuple):
            raise SlideError(f"{where}: a point; an outline is needed here, a Polygon or MultiPolygon.")
        areas.append(shape)
        names.append(name)
    return Outlines(tuple(areas), tuple(names))


def geojson_shapes(path: Path) -> Iterator[tuple[Point | BaseGeometry, str | None, str]]:
    """The shapes of a GeoJSON file: point or area, class, and where it is for messages.

    Raises:
        SlideError: As :func:`read_geojson`.
    """
    check_readable(path)
    try:
        document = json.loads(_text(path))
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise SlideError(f"{path}: not JSON that can be parsed ({error}); export it again.") from error
    for number, feature in enumerate(_features(path, document), start=1):
        where = f"{path}, feature {number}"
        for shape in _feature_shapes(feature, where):
            yield shape, _class_name(feature), where


def _text(path: Path) -> bytes:
    opened: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as stream:
        text = stream.read(MAX_TEXT_BYTES + 1)
    if len(text) > MAX_TEXT_BYTES:
        raise SlideError(f"{path}: more than {MAX_TEXT_BYTES:,} bytes of text; split the annotations.")
    return text


def _features(path: Path, document: Any) -> list[Any]:
    if isinstance(document, list):
        return document
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "FeatureCollection" and isinstance(document.get("features"), list):
        return document["features"]
    if kind == "Feature":
        return [document]
    raise SlideError(
        f"{path}: expected a FeatureCollection, a list of features or one feature, not {kind!r}."
    )


def _class_name(feature: dict[str, Any]) -> str | None:
    properties = feature.get("properties")
    classification = properties.get("classification") if isinstance(properties, dict) else None
    name = classification.get("name") if isinstance(classification, dict) else None
    return name if isinstance(name, str) and name else None


def _feature_shapes(feature: Any, where: str) -> list[Point | BaseGeometry]:
    try:
        geometry = feature.get("nucleusGeometry") or feature["geometry"]
        kind, coordinates = geometry["type"], geometry["coordinates"]
        if kind == "Point":
            return [_point(coordinates)]
        if kind == "MultiPoint":
            return [_point(point) for point in coordinates]
        if kind == "Polygon":
            return [_polygon(coordinates, where)]
        if kind == "MultiPolygon" and coordinates:
            area = shapely.union_all([_polygon(rings, where) for rings in coordinates])
            if not area.area > 0:
                raise SlideError(f"{where}: the outline encloses no area; draw it again or remove it.")
            return [area]
    except (AttributeError, TypeError, ValueError, LookupError, OverflowError) as error:
        raise SlideError(f"{where}: its geometry is malformed ({error!r}); export it again.") from error
    raise SlideError(f"{where}: geometry {kind!r}; expected Point, MultiPoint, Polygon or MultiPolygon.")


def _point(coordinates: Sequence[Any]) -> Point:
    x, y, *_ = coordinates
    return float(x), float(y)


def _polygon(rings: Sequence[Any], where: str) -> BaseGeometry:
    shell, *holes = [[_point(vertex) for vertex in ring] for ring in rings]
    return _outline(shell, where, holes)


def _outline(shell: Sequence[Point], where: str, holes: Sequence[Sequence[Point]] = ()) -> BaseGeometry:
    """The area inside an outline, valid, or an error that says what is wrong with it."""
    if len(shell) < 3 or any(len(hole) < 3 for hole in holes):
        raise SlideError(f"{where}: an outline of {len(shell)} vertices; expected 3 or more, or a point.")
    rings = [np.array(ring, dtype=np.float64) for ring in (shell, *holes)]
    if not all(np.isfinite(ring).all() for ring in rings):
        raise SlideError(f"{where}: a vertex is not finite; correct or remove the outline.")
    area = shapely.Polygon(rings[0], rings[1:])
    repaired = not area.is_valid
    area = make_valid(area)
    if not area.area > 0:
        raise SlideError(f"{where}: the outline encloses no area; draw it again or remove it.")
    if repaired and shapely.area(shapely.get_parts(area)).max() < LARGEST_SHARE * area.area:
        raise SlideError(f"{where}: the outline crosses itself and falls into parts; draw it again.")
    return area


def make_valid(area: BaseGeometry) -> BaseGeometry:
    """An area that crosses or touches itself as a valid one; a valid one as it is.

    Where parts touch, one repair may leave them crossing by a rounded hair, which the next one mends.
    """
    for _ in range(MAX_REPAIRS):
        if area.is_valid:
            break
        area = shapely.make_valid(area, method="structure", keep_collapsed=False)
    return area


def _centroid(area: BaseGeometry) -> Point:
    centre = area.centroid
    return centre.x, centre.y
