"""Nuclei of a slide-level map, by the model card's rule."""

from __future__ import annotations

import math

from karyon.models.card import Decoding
from karyon.nuclei.components import Components, Map2D, find_components
from karyon.nuclei.peaks import find_peaks


def map_threshold(decoding: Decoding, maximum: int) -> int:
    """The threshold on the uint8 map.

    Args:
        decoding: The rule; its threshold is a probability, or for ``peaks`` a share of the maximum.
        maximum: Largest value of the slide's map, so that tiles agree (`docs/methods.md`, Nuclei).

    Returns:
        1 to 255.
    """
    return map_level(decoding.threshold, maximum if decoding.method == "peaks" else 255)


def map_level(share: float, top: int = 255) -> int:
    """The least value of a uint8 map that is at least ``share`` of ``top``: 1 to 255."""
    return min(255, max(1, math.ceil(share * top - 1e-9)))


def decode(values: Map2D, decoding: Decoding, maximum: int, model_mpp: float) -> Components:
    """Find the nuclei.

    Args:
        values: uint8 map on the model grid.
        decoding: The rule.
        maximum: Largest value of the slide's map.
        model_mpp: Microns per map pixel.
    """
    threshold = map_threshold(decoding, maximum)
    if decoding.method == "peaks":
        return find_peaks(values, threshold, max(1, round(decoding.distance_um / model_mpp)))
    found = find_components(values, threshold)
    return found.select(found.area * model_mpp**2 >= decoding.min_area_um2)
