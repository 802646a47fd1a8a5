"""Nuclei as instances, from the maps of a model of outlines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from karyon.models.card import Decoding
from karyon.nuclei.components import BLOCK_PX
from karyon.nuclei.dilation import Dilation
from karyon.nuclei.labels import MapStack, label_extents
from karyon.nuclei.watershed import Watershed
from karyon.nuclei.whole import Box, whole_components

METHODS: dict[str, type[Dilation] | type[Watershed]] = {"dilation": Dilation, "watershed": Watershed}


@dataclass(frozen=True)
class Window:
    """Some nuclei of a map.

    Attributes:
        x: Left of the window in map pixels.
        y: Top of the window in map pixels.
        labels: int32, ``(h, w)``: 0 background, 1 to n whole nuclei, by their first pixel in reading order.
    """

    x: int
    y: int
    labels: np.ndarray

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the map."""
        height, width = self.labels.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)


def decode_instances(
    maps: MapStack, decoding: Decoding, names: Sequence[str], model_mpp: float, block_px: int = BLOCK_PX
) -> Iterator[Window]:
    """The nuclei of a map, each of them whole and in one window.

    What a nucleus looks like depends on what it touches, and that on what it touches in turn: so whole
    components of the foreground are decoded (:func:`karyon.nuclei.whole.whole_components`), and no block
    shows in the result.

    Args:
        maps: uint8, ``(c, h, w)``: 255 times the value.
        decoding: The rule, ``dilation`` or ``watershed``.
        names: Of the maps, as on the model's card.
        model_mpp: Microns per map pixel.
        block_px: Side of a block; memory grows with it, the nuclei do not depend on it.

    Yields:
        Windows with at least one nucleus, by block.
    """
    method = METHODS[decoding.method](maps, decoding, names, model_mpp)
    height, width = maps.shape[1:]
    for box, foreground in whole_components(method.foreground, (height, width), block_px):
        yield from _windows(method.split(box, foreground), box.left, box.top, block_px)


def label_map(maps: MapStack, decoding: Decoding, names: Sequence[str], model_mpp: float) -> np.ndarray:
    """The nuclei of a small map as one label image.

    Args:
        maps: uint8, ``(c, h, w)``: 255 times the value.
        decoding: The rule, ``dilation`` or ``watershed``.
        names: Of the maps, as on the model's card.
        model_mpp: Microns per map pixel.

    Returns:
        int32, ``(h, w)``: 0 background, 1 to n the nuclei, by their first pixel in reading order.
    """
    labels = np.zeros(maps.shape[1:], np.int32)
    for window in decode_instances(maps, decoding, names, model_mpp, max(labels.shape)):
        labels[window.slices] = window.labels
    return labels


def shown_background(
    maps: MapStack, decoding: Decoding, names: Sequence[str], model_mpp: float, window: Window, margin: int
) -> np.ndarray:
    """Where the maps show no nucleus in and round a window, whatever nuclei are in it.

    Args:
        maps: uint8, ``(c, h, w)``: 255 times the value.
        decoding: The rule, ``dilation`` or ``watershed``.
        names: Of the maps, as on the model's card.
        model_mpp: Microns per map pixel.
        window: Of these maps.
        margin: Map pixels round it.

    Returns:
        bool, ``(h + 2 margin, w + 2 margin)``; not outside the map.
    """
    height, width = window.labels.shape
    box = Box(window.y, window.x, window.y + height, window.x + width)
    inside = box.grown(margin, maps.shape[1:])
    around = np.zeros((height + 2 * margin, width + 2 * margin), bool)
    top, left = inside.top - box.top + margin, inside.left - box.left + margin
    foreground = METHODS[decoding.method](maps, decoding, names, model_mpp).foreground(inside)
    around[top : top + inside.shape[0], left : left + inside.shape[1]] = foreground == 0
    return around


def _windows(labels: np.ndarray, left: int, top: int, block: int) -> Iterator[Window]:
    """Labels as windows of about a block's size at most, cropped to the nuclei that are in them."""
    order, boxes = label_extents(labels)
    fits = max(labels.shape) <= 2 * block
    cells = np.zeros((len(order), 2), np.int64) if fits else boxes[:, :2] // block
    for cell in np.unique(cells, axis=0):
        chosen = np.flatnonzero((cells == cell).all(axis=1))
        y0, x0 = boxes[chosen, :2].min(axis=0)
        y1, x1 = boxes[chosen, 2:].max(axis=0)
        number = np.zeros(labels.max() + 1, np.int32)
        number[order[chosen]] = np.arange(1, len(chosen) + 1)
        yield Window(left + int(x0), top + int(y0), number[labels[y0:y1, x0:x1]])
