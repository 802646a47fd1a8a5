"""Annotated images on the model's grid, ready to be cropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
import torch
from tqdm import tqdm

from karyon.errors import KaryonError, SlideError
from karyon.io.annotations import (
    INSTANCE_FORMATS,
    OUTLINE_FORMATS,
    read_label_map,
    read_outlines,
    read_points,
)
from karyon.io.annotations.outlines import geojson_shapes
from karyon.io.sheets import read_sheet
from karyon.io.slides import open_slide
from karyon.stain.inputs import Measured
from karyon.tiles.grid import Grid, read_window
from karyon.training.experiment import Dataset, Experiment
from karyon.training.instance_maps import instance_map
from karyon.training.shapes import Annotation, has_areas
from karyon.training.stains import image_stains
from karyon.training.targets import TARGETS

MAX_PIXELS = 400_000_000


@dataclass(frozen=True)
class TrainingImage:
    """One annotated image.

    Attributes:
        image_id: From the sheet.
        patient: From the sheet; '' where it names none.
        dataset: Which of the experiment's datasets it belongs to, from 0.
        inputs: What crops are cut from, float32, ``(c, h, w)``: see :class:`karyon.stain.inputs.Measured`.
        target: What the network is to give, float32, ``(k, h, w)`` for ``k`` maps.
        points: Nucleus centroids in model pixels, float64, ``(n, 2)``.
        grid: The model grid.
        mpp: Microns per level-0 pixel.
        truth: Nucleus centroids in level-0 pixels, float64, ``(n, 2)``.
        instances: The nuclei on the model grid, int32, ``(h, w)``: what outlines are validated by; ``None``
            where the experiment's are centres, or only those are annotated.
        class_name: Class of each nucleus as the annotations name it, ``None`` where they name none.
    """

    image_id: str
    patient: str
    dataset: int
    inputs: torch.Tensor
    target: torch.Tensor
    points: np.ndarray
    grid: Grid
    mpp: float
    truth: np.ndarray
    instances: np.ndarray | None = None
    class_name: tuple[str | None, ...] = ()


def load_datasets(experiment: Experiment) -> tuple[list[TrainingImage], list[TrainingImage]]:
    """The images of an experiment, to train and to validate on.

    Raises:
        KaryonError: A sheet has mistakes, an image cannot be read, a dataset has no image of a split,
            training images share a patient with others (:func:`check_splits`), or none has a nucleus of a
            class.
    """
    check_splits(experiment.datasets, [read_sheet(dataset.sheet_path()) for dataset in experiment.datasets])
    images: list[TrainingImage] = []
    validation: list[TrainingImage] = []
    for number, dataset in enumerate(experiment.datasets):
        for split in dataset.train_splits:
            images += load_split(experiment, number, split)
        for split in dataset.validation_splits:
            validation += load_split(experiment, number, split)
    _check_classes(experiment, images)
    return images, validation


def _check_classes(experiment: Experiment, images: Sequence[TrainingImage]) -> None:
    """See that there is something to learn each class from."""
    named = {name for image in images for name in image.class_name if name is not None}
    missing = [name for name in experiment.classes if name not in named]
    if missing:
        raise KaryonError(
            f"classes: no nucleus of the training images is of the class {', '.join(map(repr, missing))}; "
            f"their annotations name {', '.join(map(repr, sorted(named))) or 'none'}"
        )


def load_split(experiment: Experiment, number: int, split: str) -> list[TrainingImage]:
    """The images of one split of one dataset.

    Args:
        experiment: Its ``mpp``, ``input`` and target.
        number: Which of its datasets.
        split: A value of the sheet's column ``split``.

    Raises:
        KaryonError: The sheet has mistakes or no such split, or an image cannot be read.
    """
    path = experiment.datasets[number].sheet_path()
    sheet = read_sheet(path)
    rows = sheet[sheet["split"] == split]
    if rows.empty:
        raise KaryonError(
            f"{path}: no image has the split '{split}'; the sheet has "
            f"{', '.join(repr(name) for name in sorted(set(sheet['split'])))}"
        )
    bar = tqdm(rows.iterrows(), total=len(rows), desc=f"reading {split}", disable=None)
    return [load_image(row, experiment, number) for _, row in bar]


@dataclass(frozen=True)
class _Place:
    """Where an image stands: the sheet and split, and what it is for."""

    image_id: str
    file: Path
    patient: str
    role: str
    where: str


def check_splits(datasets: Sequence[Dataset], sheets: Sequence[pd.DataFrame]) -> None:
    """Refuse to train on images or patients that are validated on, or that a test split holds back.

    Every pair of datasets is compared. Test splits are those a sheet names and the dataset does not: images
    without a split are held back by nobody. Images are the same if their files are, links followed: an id is
    of one sheet alone. Copies of an image in several places are told by their patient only.

    Args:
        datasets: Of the experiment.
        sheets: Their sheets, with the columns ``slide_id``, ``path``, ``patient`` and ``split``.

    Raises:
        KaryonError: There are such; the message names each.
    """
    columns = ["slide_id", "path", "patient", "split"]
    places = [
        _Place(image_id, Path(path).resolve(), patient, role, f"split {split} of {dataset.sheet}")
        for dataset, sheet in zip(datasets, sheets, strict=True)
        for image_id, path, patient, split in zip(*(sheet[name] for name in columns), strict=True)
        if (role := _role(dataset, split))
    ]
    trained = [place for place in places if place.role == "trained on"]
    by_file = {place.file: place for place in trained}
    by_patient = {place.patient: place for place in trained if place.patient}
    mistakes = []
    for place in places:
        if place.role == "trained on":
            continue
        if (same := by_file.get(place.file)) is not None:
            one = same.image_id == place.image_id
            shared = (
                f"image {place.image_id}" if one else f"{place.file} ({same.image_id} and {place.image_id})"
            )
        elif (same := by_patient.get(place.patient)) is not None:
            shared = f"patient {place.patient} ({same.image_id} and {place.image_id})"
        else:
            continue
        mistakes.append(f"{shared} is trained on in {same.where} and {place.role} in {place.where}")
    if mistakes:
        raise KaryonError("\n".join([*mistakes, "Keep each patient on one side: correct the column split."]))


def _role(dataset: Dataset, split: str) -> str:
    if split in dataset.train_splits:
        return "trained on"
    if split in dataset.validation_splits:
        return "validated on"
    return "held back" if split else ""


def load_image(row: pd.Series, experiment: Experiment, dataset: int) -> TrainingImage:
    """Read one image of a sheet through the same steps as a slide of a cohort.

    Args:
        row: A row of a checked sheet.
        experiment: Its ``mpp``, ``input`` and target.
        dataset: Which of its datasets the row belongs to.

    Raises:
        KaryonError: The row has no annotations, those of a part of it or points among outlines, the image is
            too large to be held, or one of them cannot be read.
    """
    if not row["annotations"]:
        raise KaryonError(f"image {row['slide_id']}: the sheet names no annotations; training needs them")
    if row["region"]:
        raise KaryonError(
            f"image {row['slide_id']}: only its region is annotated, and training takes whole images; cut "
            "the region out"
        )
    with open_slide(row["path"], row["mpp"]) as slide:
        facts = slide.facts
        grid = Grid.of_slide(facts, experiment.mpp)
        if grid.width * grid.height > MAX_PIXELS:
            raise KaryonError(
                f"{row['path']}: {grid.width} x {grid.height} pixels at {experiment.mpp} microns per pixel; "
                f"training holds images of up to {MAX_PIXELS:,} pixels: cut annotated fields out of it"
            )
        fit = None
        if experiment.input != "RGB":
            fit = image_stains(row["path"], facts.mpp, row["stain"], experiment.datasets[dataset].stain_cache)
        rgb = read_window(slide, grid, 0, 0, grid.width, grid.height)
    nuclei = read_annotation(row, (facts.width, facts.height), facts.mpp)
    if row["annotation_format"] == "geojson" and not has_areas(nuclei.annotation):
        _check_points(Path(row["annotations"]))
    areas = experiment.finds_outlines and has_areas(nuclei.annotation)
    measured = Measured(experiment.input, fit)(torch.from_numpy(rgb[None].copy()))[0]
    return TrainingImage(
        image_id=row["slide_id"],
        patient=row["patient"],
        dataset=dataset,
        inputs=measured.clone(memory_format=torch.contiguous_format),
        target=_target(nuclei, experiment, grid, facts.mpp),
        points=grid.from_level0(nuclei.centres),
        grid=grid,
        mpp=facts.mpp,
        truth=nuclei.centres,
        instances=instance_map(nuclei.annotation, grid, facts.mpp) if areas else None,
        class_name=nuclei.class_name,
    )


@dataclass(frozen=True)
class AnnotatedNuclei:
    """The annotated nuclei of an image, in level-0 pixels.

    Attributes:
        annotation: Areas where all of the file's nuclei have them, else centres.
        centres: The centroids, float64, ``(n, 2)``.
        class_name: Class of each as the file names it, ``None`` where it names none.
    """

    annotation: Annotation
    centres: np.ndarray
    class_name: tuple[str | None, ...]


def _target(nuclei: AnnotatedNuclei, experiment: Experiment, grid: Grid, mpp: float) -> torch.Tensor:
    """What the network is to give, float32, ``(k, h, w)``."""
    kind, arguments = TARGETS[experiment.target], dict[str, Any](experiment.target_arguments)
    if kind.by_class:
        number = {name: number for number, name in enumerate(experiment.classes)}
        class_of = np.array([number.get(name or "", -1) for name in nuclei.class_name], np.int64)
        arguments |= {"classes": len(number), "class_of": class_of}
    target = kind.draw(nuclei.annotation, grid, mpp, **arguments)
    return torch.from_numpy(target.reshape(-1, grid.height, grid.width))


def read_annotation(row: pd.Series, size: tuple[int, int], mpp: float) -> AnnotatedNuclei:
    """The annotated nuclei of an image, in level-0 pixels.

    Args:
        row: A row of a checked sheet that names annotations.
        size: Width and height of the image.
        mpp: Microns per pixel of it.

    Raises:
        SlideError: The annotations cannot be read.
    """
    file_format = row["annotation_format"]
    scale = row["annotation_mpp"] / mpp if row["annotation_mpp"] > 0 else 1.0
    file = row["annotations"], file_format, size, scale
    if file_format in OUTLINE_FORMATS:
        try:
            outlines = read_outlines(*file)
        except SlideError:
            pass  # the file holds points, or it is wrong and reading points says how
        else:
            centres = shapely.get_coordinates(shapely.centroid(outlines.areas)).reshape(-1, 2)
            return AnnotatedNuclei(outlines.areas, centres, outlines.class_name)
    found = read_points(*file)
    annotation = read_label_map(*file) if file_format in INSTANCE_FORMATS else found.points
    return AnnotatedNuclei(annotation, found.points, found.class_name)


def _check_points(path: Path) -> None:
    """Refuse a GeoJSON of points if some of its nuclei are outlines, which are not to be lost unsaid."""
    shapes = list(geojson_shapes(path))
    points = [where for shape, _, where in shapes if isinstance(shape, tuple)]
    if len(points) < len(shapes):
        raise SlideError(
            f"{points[0]}: a point, one of {len(points)} among {len(shapes) - len(points)} outlines; "
            "training takes either. Delete the points or draw their outlines, or make all of them points."
        )
