"""One array out of a MATLAB file."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io

from karyon.errors import SlideError
from karyon.io.slides import MAX_PLAIN_PIXELS

NUMERIC = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")

_LOAD_TO_STDOUT = """
import io, sys
import numpy, scipy.io
path, name = sys.argv[1:]
stream = io.BytesIO()
numpy.save(stream, scipy.io.loadmat(path, variable_names=[name])[name], allow_pickle=False)
sys.stdout.buffer.write(stream.getbuffer())
"""


def read_variable(path: Path, name: str, wanted: str, fits: Callable[[tuple[int, ...]], bool]) -> np.ndarray:
    """The array of a name, or the only numeric array that fits.

    Args:
        path: A MATLAB file up to version 7.
        name: The variable that is taken where there is one.
        wanted: What fits, for messages: "array of ...".
        fits: Whether a shape is what is wanted; asked where no variable is called ``name``.

    Raises:
        SlideError: The file cannot be read or is of version 7.3, or no variable or several fit.
    """
    try:
        variables = {key: (shape, kind) for key, shape, kind in scipy.io.whosmat(path)}
        chosen = _choose(path, variables, name, wanted, fits)
        shape = variables[chosen][0]
        if math.prod(shape) > MAX_PLAIN_PIXELS:  # compressed, so a small file may promise much
            raise SlideError(
                f"{path}: '{chosen}' has shape {shape}; at most {MAX_PLAIN_PIXELS:,} values are read."
            )
        return _load_apart(path, chosen)
    except SlideError:
        raise
    except NotImplementedError as error:
        raise SlideError(
            f"{path}: a MATLAB 7.3 (HDF5) file, which is not read; save it in MATLAB with the option '-v7'."
        ) from error
    except Exception as error:  # scipy raises errors of many kinds on a damaged file
        raise SlideError(f"{path}: not a MATLAB file that can be read ({error}); save it again.") from error


def _load_apart(path: Path, name: str) -> np.ndarray:
    """Load a variable in a process of its own: scipy's reader dies on some damaged files, and only it may."""
    command = [sys.executable, "-P", "-c", _LOAD_TO_STDOUT, str(path), name]
    child = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - no shell, fixed program
    if child.returncode:
        lines = child.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(lines[-1] if lines else f"the reader ended with status {child.returncode}")
    array: np.ndarray = np.load(io.BytesIO(child.stdout), allow_pickle=False)
    return array


def _choose(
    path: Path,
    variables: dict[str, tuple[tuple[int, ...], str]],
    name: str,
    wanted: str,
    fits: Callable[[tuple[int, ...]], bool],
) -> str:
    if name in variables:
        if variables[name][1] not in NUMERIC:
            kind = variables[name][1]
            raise SlideError(f"{path}: '{name}' is of type {kind}; expected an {wanted}.")
        return name
    fitting = [key for key, (shape, kind) in variables.items() if kind in NUMERIC and fits(shape)]
    if len(fitting) != 1:
        listed = ", ".join(f"{key} {shape} {kind}" for key, (shape, kind) in variables.items()) or "nothing"
        raise SlideError(
            f"{path}: {len(fitting)} variables could be meant; expected one called '{name}' or exactly one "
            f"{wanted}. The file holds: {listed}."
        )
    return fitting[0]
