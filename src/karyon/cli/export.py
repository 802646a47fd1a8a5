"""`karyon export`: nuclei of a cohort's slides, or of a region, for other tools."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

NAME = "export"
HELP = (
    "Write nuclei for other tools: GeoJSON for QuPath, CSV, GeoParquet or label images; all or of a region."
)
SUFFIXES = {
    "geojson": ".geojson.gz",
    "csv": ".csv.gz",
    "parquet": ".parquet",
    "labels": ".labels.ome.tif",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("cohort", type=Path, help="results/<cohort>")
    parser.add_argument("--format", required=True, choices=SUFFIXES, help="what to write, a file per slide")
    parser.add_argument("--slide", nargs="+", metavar="ID", help="only these slides (default: all)")
    region = parser.add_mutually_exclusive_group()
    region.add_argument(
        "--bbox",
        nargs=4,
        type=float,
        metavar=("X0", "Y0", "X1", "Y1"),
        help="only nuclei with their centroid in this box, in level-0 pixels of the whole image",
    )
    region.add_argument(
        "--region",
        type=Path,
        metavar="FILE.geojson",
        help="only nuclei with their centroid in these areas, as QuPath exports them",
    )
    parser.add_argument("--output", type=Path, help="folder to write to (default: <cohort>/export)")


def run(args: argparse.Namespace) -> int:
    """Write the files and print where they are.

    Raises:
        KaryonError: A slide has no table of nuclei, a region is asked of several slides, or labels of nuclei
            without outlines.
    """
    from pyarrow import ArrowInvalid

    from karyon.nuclei.export import write_csv, write_geojson, write_parquet

    writers: dict[str, Callable[[Path, Path, BaseGeometry | None], None]] = {
        "geojson": write_geojson,
        "csv": write_csv,
        "parquet": write_parquet,
        "labels": partial(_write_labels, args.cohort),
    }
    tables = _tables(args)
    region = _region(args, tables)
    lost = 0
    for table in tables:
        path = (args.output or args.cohort / "export") / (table.stem + SUFFIXES[args.format])
        try:
            writers[args.format](path, table, region)
        except (ArrowInvalid, OSError) as error:  # a damaged file, which is no reason to lose the others
            print(f"karyon: {table}: cannot be read ({error}); run the workflow again", file=sys.stderr)
            lost += 1
        else:
            print(path)
    return 1 if lost else 0


def _write_labels(cohort: Path, path: Path, nuclei: Path, region: BaseGeometry | None) -> None:
    """The label image of a slide, as large as the slide."""
    from karyon.cohort.layout import SlideFiles
    from karyon.cohort.stages.tissue import TissueFiles
    from karyon.nuclei.label_image import write_label_image

    write_label_image(path, nuclei, TissueFiles.read(SlideFiles(cohort, nuclei.stem)).facts, region)


def _tables(args: argparse.Namespace) -> list[Path]:
    """The nuclei tables of the slides that are wanted, and finished: others may be of an earlier run."""
    from karyon.cohort.layout import SlideFiles
    from karyon.cohort.questions import read_slides

    slides = read_slides(args.cohort, args.slide or ())
    return [SlideFiles(args.cohort, slide).nuclei for slide in sorted(slides["slide_id"])]


def _region(args: argparse.Namespace, tables: list[Path]) -> BaseGeometry | None:
    """The area asked for, in level-0 pixels of the one slide that it is meant for."""
    import shapely

    from karyon.errors import KaryonError
    from karyon.io.annotations.outlines import read_geojson_outlines
    from karyon.nuclei.export import from_qupath

    if not (args.bbox or args.region):
        return None
    if len(tables) > 1:
        raise KaryonError(f"a region is of one slide, {len(tables)} are asked for; name one with --slide")
    if args.bbox:
        return shapely.box(*args.bbox)
    areas = read_geojson_outlines(args.region).areas
    if not len(areas):
        raise KaryonError(f"{args.region}: has no area; draw one in QuPath and export it as GeoJSON")
    return from_qupath(shapely.union_all(areas), tables[0])
