"""What is measured of every nucleus with an outline, window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from karyon.nuclei.morphology import find_boxes, measure_shapes
from karyon.nuclei.polygons import Outlines, trace_outlines
from karyon.nuclei.staining import measure_staining

CLASS_PREFIX = "inside:"


@dataclass(frozen=True)
class Shapes:
    """Nuclei with their outlines, in model pixels.

    Attributes:
        shape: Size and shape, structured array of :data:`karyon.nuclei.morphology.SHAPE`, ``(n,)``; centroids
            from the centre of the map's first pixel.
        probability: Mean of the map of nuclei inside, 0 to 1, ``(n,)``.
        staining: As from :func:`karyon.nuclei.staining.measure_staining`, float32, ``(n, 2, 2, 2)``.
        class_id: Place of the class among :func:`class_names`, from 1, int32, ``(n,)``; 0 of a model without.
        class_probability: Share of the nucleus' pixels that voted for its class, ``(n,)``.
        outlines: Polygons.
    """

    shape: np.ndarray
    probability: np.ndarray
    staining: np.ndarray
    class_id: np.ndarray
    class_probability: np.ndarray
    outlines: Outlines


def class_names(maps: Sequence[str]) -> tuple[str, ...]:
    """The classes that a model tells apart.

    Args:
        maps: Of its card.
    """
    return tuple(name.removeprefix(CLASS_PREFIX) for name in maps if name.startswith(CLASS_PREFIX))


def measure_window(
    labels: np.ndarray,
    x: int,
    y: int,
    maps: np.ndarray,
    names: Sequence[str],
    densities: np.ndarray,
    background: np.ndarray,
) -> Shapes:
    """Outline and measure the nuclei of a window, each of which it holds as a whole.

    A nucleus' figures do not depend on where it lies in the window, nor on what else is there.

    Args:
        labels: int32, ``(h, w)``: 0, and each of 1 to n.
        x: Left of the window in model pixels.
        y: Top of the window in model pixels.
        maps: The window's box of the slide's maps, uint8, ``(c, h, w)``.
        names: What each of the maps shows, as on the model's card.
        densities: Concentrations of both stains, float32, ``(h + 2r, w + 2r, 2)``, ``r`` from
            :func:`karyon.nuclei.staining.ring_px`.
        background: Where the maps show no nucleus, bool, ``(h + 2r, w + 2r)``.

    Returns:
        Nuclei 1 to n, in this order.
    """
    boxes = find_boxes(labels)
    shape = measure_shapes(labels, boxes, x, y)
    pixels = np.flatnonzero(labels)
    owner, values = labels.ravel()[pixels] - 1, maps.reshape(len(maps), -1)[:, pixels]
    shown = [name == "nucleus" or name == "inside" or name.startswith(CLASS_PREFIX) for name in names]
    nucleus = np.minimum(values[shown].sum(axis=0, dtype=np.int64), 255)  # rounded maps may add up to 256
    total = np.bincount(owner, weights=nucleus, minlength=len(boxes))
    voted = values[[name.startswith(CLASS_PREFIX) for name in names]]
    class_id, class_probability = _vote(owner, voted, shape["area"])
    return Shapes(
        shape=shape,
        probability=total / (255 * shape["area"]),
        staining=measure_staining(labels, boxes, densities, background).astype(np.float32),
        class_id=class_id,
        class_probability=class_probability,
        outlines=trace_outlines(labels, x, y),
    )


def _vote(owner: np.ndarray, values: np.ndarray, area: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class of most pixels of each nucleus, from 1, and their share (JOINT; `docs/methods.md`, Nuclei).

    A pixel votes for the class of the largest value, of equal ones the first; not where all are 0.

    Args:
        owner: Nucleus of each pixel, from 0, ``(p,)``.
        values: Of the classes' maps, uint8, ``(classes, p)``.
        area: Pixels of each nucleus, ``(n,)``.
    """
    number, classes = len(area), len(values)
    if classes == 0:
        return np.zeros(number, np.int32), np.full(number, np.nan)
    voting = values.any(axis=0)
    ballots = owner[voting].astype(np.int64) * classes + values[:, voting].argmax(axis=0)
    votes = np.bincount(ballots, minlength=number * classes).reshape(number, classes)
    return votes.argmax(axis=1).astype(np.int32) + 1, votes.max(axis=1) / area
