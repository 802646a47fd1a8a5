"""The plan of the tissue: where tissue, glands, lumina, stroma and infiltrate lie, in microns."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from karyon.demo.glands import nearest_gland
from karyon.demo.look import Look
from karyon.demo.noise import Field, field_seed, noise_at


@dataclass(frozen=True)
class Architecture:
    """The tissue at n points. All arrays are float64, ``(n,)``; depths are positive inside, in microns.

    Attributes:
        tissue: Depth below the outline of the tissue.
        gland: Depth below the surface of the nearest gland, nest or vessel.
        lumen: Depth below the surface of its lumen.
        vessel: 1 where the nearest structure is a vessel, else 0.
        radial: Angle of the direction away from the centre of the nearest structure, radians.
        tone: Shade of that structure's cytoplasm, -1 to 1.
        secretion: Density of what its lumen holds, 0 to 1.
        fibre_cos: Cosine of twice the angle of the stroma's fibres.
        fibre_sin: Sine of twice that angle.
        infiltrate: Density of lymphocytes, 0 to 1.
        loose: Looseness of the stroma, 0 (dense collagen) to 1 (loose, with clefts).
        warp_x: Displacement of the fibres, which makes them wavy, microns.
        warp_y: The same, vertically.
        thickness: Thickness of the section, about 1.
        pen: Density of the pen mark, 0 to 1.
    """

    tissue: np.ndarray
    gland: np.ndarray
    lumen: np.ndarray
    vessel: np.ndarray
    radial: np.ndarray
    tone: np.ndarray
    secretion: np.ndarray
    fibre_cos: np.ndarray
    fibre_sin: np.ndarray
    infiltrate: np.ndarray
    loose: np.ndarray
    warp_x: np.ndarray
    warp_y: np.ndarray
    thickness: np.ndarray
    pen: np.ndarray

    def stack(self, names: tuple[str, ...]) -> np.ndarray:
        """The named arrays as float32, ``(len(names), n)``."""
        known = {field.name for field in fields(self)}
        assert known.issuperset(names)
        return np.stack([getattr(self, name) for name in names]).astype(np.float32)


def architecture_at(look: Look, x: np.ndarray, y: np.ndarray) -> Architecture:
    """Evaluate the plan of a slide at points.

    Args:
        look: The slide.
        x: Microns from the left, float64, ``(n,)``.
        y: Microns from the top, float64, ``(n,)``.
    """

    def noise(field: Field, scale: float) -> np.ndarray:
        return noise_at(x, y, scale, field_seed(look.seed, field))

    nearest = nearest_gland(look, x, y)
    gland = nearest.depth + 2.5 * noise(Field.GLAND_EDGE, 24.0)
    lumen = gland - nearest.wall + 3.5 * noise(Field.LUMEN_EDGE, 17.0)
    angle = 2 * np.pi * noise(Field.FIBRE_ANGLE, 420.0)
    # Close to a gland the fibres run around it.
    around = np.exp(np.minimum(gland, 0.0) / 14.0)
    fibre_cos = (1 - around) * np.cos(2 * angle) - around * np.cos(2 * nearest.angle)
    fibre_sin = (1 - around) * np.sin(2 * angle) - around * np.sin(2 * nearest.angle)
    return Architecture(
        tissue=_tissue_depth(look, x, y),
        gland=gland,
        lumen=lumen,
        vessel=nearest.vessel,
        radial=nearest.angle,
        tone=nearest.tone,
        secretion=nearest.secretion,
        fibre_cos=fibre_cos,
        fibre_sin=fibre_sin,
        infiltrate=np.clip(2.2 * noise(Field.INFILTRATE, 190.0) + 1.4 * look.infiltrate - 0.55, 0.0, 1.0),
        loose=np.clip(0.45 + 1.1 * noise(Field.LOOSE, 260.0), 0.0, 1.0),
        warp_x=6.0 * noise(Field.WARP_X, 46.0) + 2.2 * noise(Field.WARP_X, 19.0),
        warp_y=6.0 * noise(Field.WARP_Y, 46.0) + 2.2 * noise(Field.WARP_Y, 19.0),
        thickness=1 + 0.16 * noise(Field.THICKNESS, 520.0),
        pen=_pen_density(look, x, y),
    )


def _tissue_depth(look: Look, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Depth below the outline: ellipses with a coastline."""
    depth = np.full(x.shape, -np.inf)
    for cx, cy, rx, ry in look.pieces:
        radius_x, radius_y = rx * look.width_um, ry * look.height_um
        radius = min(radius_x, radius_y)
        rho = np.hypot((x - cx * look.width_um) / radius_x, (y - cy * look.height_um) / radius_y)
        bays = noise_at(x, y, radius * 0.7, field_seed(look.seed, Field.OUTLINE))
        depth = np.maximum(depth, radius * (1 - rho + 0.16 * bays))
    fine = field_seed(look.seed, Field.OUTLINE_FINE)
    return depth + 16.0 * noise_at(x, y, 90.0, fine) + 5.0 * noise_at(x, y, 23.0, fine)


def _pen_density(look: Look, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A felt-tip stroke on the glass along the top right corner, which just touches the tissue."""
    if not look.pen:
        return np.zeros(x.shape)
    size = min(look.width_um, look.height_um)
    wobble = 0.02 * size * noise_at(x, y, 0.3 * size, field_seed(look.seed, Field.PEN))
    distance = np.hypot(x - 0.62 * look.width_um, y - 0.52 * look.height_um) - 0.55 * size + wobble
    half_width = min(0.022 * size, 350.0)
    angle = np.arctan2(0.52 * look.height_um - y, x - 0.62 * look.width_um)
    ends = np.minimum(angle - 0.25, 1.25 - angle) * 0.55 * size
    inside = np.minimum(half_width - np.abs(distance), ends)
    streaks = 1.35 + 0.5 * noise_at(distance, 0.05 * angle * size, 5.0, field_seed(look.seed, Field.PEN))
    return np.clip(inside / 6.0 + 0.5, 0.0, 1.0) * streaks
