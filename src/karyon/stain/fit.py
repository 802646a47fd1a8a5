"""The stain matrix of a slide: sparse non-negative matrix factorisation (SPCN)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import spams

from karyon.stain.concentrations import angle_degrees, concentrations
from karyon.stain.optical_density import optical_density

# Sparsity of the dictionary step (Vahadane et al. 2016, section III-A).
DICTIONARY_PENALTY = 0.1
# Without a fixed count spams runs for a second of wall clock, and the result varies with the load.
ITERATIONS = 1000
# Pixels fainter than this (mean optical density) tell nothing of the stains.
FAINTEST = 0.15
# Denser than this in some colour, and in all at least this share of it, is black.
BLACK_DENSITY, BLACK_EVENNESS = 1.2, 0.75
MIN_PIXELS = 1000
# Stains nearer than this are one stain; the fit is then replaced by the reference.
MIN_ANGLE_DEGREES = 5.0
# Which two stains a slide carries, and their reference colours in optical density
# (Ruifrok and Johnston 2001, table 1), normalised to unit length.
STAINS = {"HE": ("hematoxylin", "eosin"), "IHC": ("hematoxylin", "dab")}
REFERENCE = {
    "hematoxylin": (0.650, 0.704, 0.286),
    "eosin": (0.072, 0.990, 0.105),
    "dab": (0.268, 0.570, 0.776),
}


@dataclass(frozen=True)
class StainFit:
    """The stains of one slide.

    Attributes:
        stain: ``HE`` or ``IHC``.
        columns: Names of the columns, hematoxylin first.
        stain_matrix: ``W``, ``(3, 2)``, unit columns.
        p99: 99th percentile of each stain's concentration in tissue, ``(2,)``.
        i0: Intensity of empty glass per channel, ``(3,)``.
        source: ``fit``, or the name of the reference that replaced a degenerate fit.
        reason: Why the fit was replaced; empty otherwise.
        residual: Root mean square of what the fit leaves unexplained, in optical density.
        angle: Angle between the columns in degrees, of the fit (also where it was replaced).
        pixels: How many tissue pixels were fitted.
    """

    stain: str
    columns: tuple[str, str]
    stain_matrix: np.ndarray
    p99: np.ndarray
    i0: np.ndarray
    source: str
    reason: str
    residual: float
    angle: float
    pixels: int

    def to_json(self) -> dict[str, object]:
        """As plain types, exact to the last bit."""
        return {
            key: value.tolist() if isinstance(value, np.ndarray) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, content: dict[str, object]) -> StainFit:
        """The inverse of :meth:`to_json`."""
        arrays = {key: np.asarray(content[key], dtype=np.float64) for key in ("stain_matrix", "p99", "i0")}
        return cls(**{**content, **arrays, "columns": tuple(content["columns"])})  # type: ignore[arg-type]

    def column(self, name: str) -> int:
        """Index of a stain's column.

        Raises:
            ValueError: The slide does not carry that stain.
        """
        if name not in self.columns:
            raise ValueError(f"the slide is stained with {' and '.join(self.columns)}, not {name}")
        return self.columns.index(name)


def reference_matrix(stain: str) -> np.ndarray:
    """Ruifrok and Johnston's colours for ``HE`` or ``IHC``, ``(3, 2)``, unit columns."""
    matrix = np.array([REFERENCE[name] for name in STAINS[stain]], dtype=np.float64).T
    return matrix / np.linalg.norm(matrix, axis=0)


def dictionary(density: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Two stain vectors that explain the pixels sparsely.

    ``min 0.5 * ||V - W H||^2 + lambda * ||H||_1`` over ``W, H >= 0`` with unit columns of ``W``
    (Vahadane et al. 2016, eq. 4), by spams' online dictionary learning, single-threaded and with a
    fixed number of iterations, so that two runs are bit-equal.

    Args:
        density: Optical densities, ``(n, 3)``.
        start: Where ``W`` starts, ``(3, 2)``.

    Returns:
        ``W``, float64, ``(3, 2)``, the column with more red absorption first.
    """
    found = spams.trainDL(
        np.asfortranarray(density.T, dtype=np.float64),
        D=np.asfortranarray(start),
        lambda1=DICTIONARY_PENALTY,
        mode=2,
        modeD=0,
        posAlpha=True,
        posD=True,
        iter=ITERATIONS,
        numThreads=1,
        verbose=False,
    )
    found = np.maximum(np.asarray(found), 0.0)
    found /= np.maximum(np.linalg.norm(found, axis=0), 1e-12)
    # Hematoxylin is blue: it absorbs red far more than eosin, and more than DAB.
    return found[:, ::-1].copy() if found[0, 0] < found[0, 1] else found


def _black(density: np.ndarray) -> np.ndarray:
    """Pixels of black ink or carbon: dark, and of hardly any colour; bool, ``(n,)``.

    No mixture of the stains is black. On kumar30 and cpm15 this leaves out 0 to 0.15 % of an image's pixels,
    on two images of crchisto with black ink 12 and 14 %, which otherwise tilt the stains and stretch p99.
    """
    darkest = density.max(axis=1)
    return (darkest > BLACK_DENSITY) & (density.min(axis=1) > BLACK_EVENNESS * darkest)


def fit_stains(rgb: np.ndarray, i0: np.ndarray, stain: str) -> StainFit:
    """Fit a slide's stains to sampled tissue pixels.

    Args:
        rgb: Sampled pixels, uint8, ``(n, 3)``.
        i0: Intensity of empty glass, ``(3,)``.
        stain: ``HE`` or ``IHC``.

    Returns:
        The fit, or the reference matrix where the fit is degenerate.
    """
    density = optical_density(rgb, i0)
    stained = (density.mean(axis=1) > FAINTEST) & ~_black(density)
    rgb, density = rgb[stained], density[stained]
    matrix, angle, reason = reference_matrix(stain), 0.0, ""
    if len(rgb) < MIN_PIXELS:
        reason = f"only {len(rgb)} stained pixels"
    else:
        fitted = dictionary(density, matrix)
        angle = angle_degrees(fitted)
        if not np.isfinite(fitted).all() or angle < MIN_ANGLE_DEGREES:
            reason = f"stain vectors are {angle:.1f} degrees apart (a gray or single-stain slide)"
        else:
            matrix = fitted
    amounts = concentrations(rgb, matrix, i0)
    left = density - amounts @ matrix.T.astype(np.float32)
    return StainFit(
        stain=stain,
        columns=STAINS[stain],
        stain_matrix=matrix,
        p99=np.maximum(np.percentile(amounts, 99, axis=0).astype(np.float64), 0.05)
        if len(rgb)
        else np.ones(2),
        i0=np.asarray(i0, dtype=np.float64),
        source=f"reference_{stain}" if reason else "fit",
        reason=reason,
        residual=float(np.sqrt((left**2).mean())) if len(rgb) else 0.0,
        angle=angle,
        pixels=len(rgb),
    )
