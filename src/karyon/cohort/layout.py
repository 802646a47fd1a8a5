"""Where each slide's files lie under ``results/<cohort>/``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


def tile_parts(jobs: int) -> tuple[str, ...]:
    """Names of the parts that jobs make of a slide's tiles, such as ``2of4``; '' where one job takes all."""
    return tuple(f"{number}of{jobs}" for number in range(1, jobs + 1)) if jobs > 1 else ("",)


@dataclass(frozen=True)
class SlideFiles:
    """The files of one slide.

    Args:
        cohort: ``results/<cohort>``.
        slide_id: A safe file name (the sheet's check saw to that).
    """

    cohort: Path
    slide_id: str

    def _file(self, folder: str, suffix: str) -> Path:
        return self.cohort / folder / f"{self.slide_id}{suffix}"

    @property
    def facts(self) -> Path:
        """Slide facts: mpp, level sizes, bounds, vendor."""
        return self._file("tissue", ".json")

    @property
    def tissue_mask(self) -> Path:
        """Tissue mask, 8-bit PNG, 255 = tissue."""
        return self._file("tissue", ".mask.png")

    @property
    def thumbnail(self) -> Path:
        """Picture of the whole slide on the mask's grid."""
        return self._file("tissue", ".thumbnail.png")

    @property
    def stain(self) -> Path:
        """The stain fit."""
        return self._file("stain", ".json")

    @property
    def tiles(self) -> Path:
        """Tile predictions with their halo."""
        return self._file("tiles", ".zarr.zip")

    @property
    def map(self) -> Path:
        """The slide-level map."""
        return self._file("maps", ".zarr.zip")

    @property
    def nuclei(self) -> Path:
        """The nuclei table."""
        return self._file("nuclei", ".parquet")

    @property
    def nuclei_csv(self) -> Path:
        """The nuclei table as CSV, where configured."""
        return self._file("nuclei", ".csv.gz")

    @property
    def nuclei_geojson(self) -> Path:
        """QuPath detections, where configured."""
        return self._file("nuclei", ".geojson.gz")

    @property
    def nuclei_mask(self) -> Path:
        """Thresholded map as pyramidal TIFF, where configured."""
        return self._file("nuclei", ".mask.tif")

    @property
    def matches(self) -> Path:
        """The match table, where the slide is annotated."""
        return self._file("matches", ".parquet")

    @property
    def matches_geojson(self) -> Path:
        """The match table for QuPath, where configured."""
        return self._file("matches", ".geojson.gz")

    @property
    def curve(self) -> Path:
        """Precision and recall over the threshold, where the slide is annotated."""
        return self._file("curves", ".parquet")

    def tiles_of(self, part: str) -> Path:
        """Tile predictions of a part of the slide; of '' :attr:`tiles`."""
        return self._file(f"tiles/{part}", ".zarr.zip") if part else self.tiles

    def every(self) -> Iterator[Path]:
        """All files above, whether they exist or not."""
        for name, member in vars(SlideFiles).items():
            if isinstance(member, property):
                yield getattr(self, name)

    def record(self, stage: str) -> Path:
        """What a stage noted of this slide when it was done."""
        return self._file(f"records/{stage}", ".json")

    def lease(self, stage: str) -> Path:
        """There while a job has the slide in hand."""
        return self._file(f"records/{stage}", ".lease")
