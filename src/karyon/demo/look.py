"""What differs from slide to slide: stains, glass, architecture of the tissue, pen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# Optical density vectors (R, G, B). Hematoxylin and eosin: the reference of Macenko et al. 2009.
HEMATOXYLIN = (0.5626, 0.7201, 0.4062)
EOSIN = (0.2159, 0.8012, 0.5581)
PEN_INKS = {"blue": (0.80, 0.55, 0.08), "green": (0.78, 0.25, 0.58), "black": (0.58, 0.58, 0.57)}

PIECE_LAYOUTS = (
    ((0.50, 0.50, 0.44, 0.42),),
    ((0.27, 0.47, 0.22, 0.41), (0.75, 0.53, 0.21, 0.40)),
)


@dataclass(frozen=True)
class Look:
    """One slide's appearance. Lengths are microns, densities optical density of the unit stain vector.

    Attributes:
        seed: Seed of every random field of the slide.
        width_um: Width of the slide.
        height_um: Height of the slide.
        stains: Unit columns hematoxylin, eosin, pen ink; float64, ``(3, 3)``, rows R, G, B.
        i0: Intensity of the bare glass, float64, ``(3,)``.
        hematoxylin: Factor on all hematoxylin.
        eosin: Factor on all eosin.
        pieces: ``(x, y, rx, ry)`` of every piece of tissue, as shares of the slide.
        pen: Whether a pen mark is drawn.
        gland_pitch_um: Distance between neighbouring glands.
        gland_share: Share of the gland sites that hold one, where epithelium is rich.
        lumen_share: Share of the glands with a lumen; the others are solid nests.
        infiltrate: How much of the stroma is rich in lymphocytes, 0 to 1.
        nucleus_scale: Factor on the size of epithelial nuclei.
        crowding: Least distance of two nuclei as a share of the sum of their radii.
        blur_um: Standard deviation of the optical blur.
        sensor_noise: Standard deviation of the sensor's noise in grey levels.
    """

    seed: int
    width_um: float
    height_um: float
    stains: np.ndarray
    i0: np.ndarray
    hematoxylin: float
    eosin: float
    pieces: tuple[tuple[float, float, float, float], ...]
    pen: bool
    gland_pitch_um: float
    gland_share: float
    lumen_share: float
    infiltrate: float
    nucleus_scale: float
    crowding: float
    blur_um: float
    sensor_noise: float


def draw_look(index: int, seed: int, width_um: float, height_um: float) -> Look:
    """Draw the appearance of slide ``index`` of a cohort.

    Two slides in four have a pen mark, and every other slide holds two pieces of tissue, so that the smallest
    cohort shows both; everything else is random.

    Args:
        index: Number of the slide from 0.
        seed: Seed of the cohort, >= 0.
        width_um: Width of the slide in microns.
        height_um: Height of the slide in microns.
    """
    rng = np.random.default_rng([seed, index])
    inks = list(PEN_INKS.values())
    ink = np.asarray(inks[(index // 2) % len(inks)])
    stains = [_jittered(rng, HEMATOXYLIN, 0.045), _jittered(rng, EOSIN, 0.045), ink / np.linalg.norm(ink)]
    return Look(
        seed=int(rng.integers(2**62)),
        width_um=width_um,
        height_um=height_um,
        stains=np.stack(stains, axis=1),
        i0=rng.uniform(241.0, 245.0) + rng.uniform(-1.5, 1.5, 3),
        hematoxylin=math.exp(rng.uniform(-0.18, 0.22)),
        eosin=math.exp(rng.uniform(-0.30, 0.20)),
        pieces=PIECE_LAYOUTS[index % 2],
        pen=index % 2 == 0,
        gland_pitch_um=rng.uniform(125.0, 185.0),
        gland_share=rng.uniform(0.75, 0.95),
        lumen_share=(0.8, 0.15, 0.5, 0.65)[index % 4],
        infiltrate=rng.uniform(0.25, 0.6),
        nucleus_scale=rng.uniform(0.92, 1.12),
        crowding=rng.uniform(0.74, 0.90),
        blur_um=rng.uniform(0.20, 0.32),
        sensor_noise=rng.uniform(1.2, 2.2),
    )


def _jittered(rng: np.random.Generator, vector: tuple[float, float, float], amount: float) -> np.ndarray:
    moved = np.asarray(vector) + rng.uniform(-amount, amount, 3)
    return moved / np.linalg.norm(moved)
