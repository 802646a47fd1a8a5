"""Points written as points: CSV and MATLAB."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO, TypeAlias

import numpy as np

from karyon.errors import SlideError
from karyon.io.annotations.files import check_readable
from karyon.io.annotations.matlab import read_variable

# Positions, (n, 2) once they are an array, and the class of each.
PointList: TypeAlias = tuple[Sequence[tuple[float, float]] | np.ndarray, Sequence[str | None]]


def read_csv(path: Path) -> PointList:
    """Points of a CSV file with the header ``x,y`` and optionally ``class``; other columns are ignored.

    Returns:
        Positions as written, and the class of each row, ``None`` where it is blank.

    Raises:
        SlideError: The file is unreadable, the header lacks ``x`` or ``y``, or a row is malformed.
    """
    check_readable(path)
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as stream:
            rows = list(_rows(path, stream))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise SlideError(f"{path}: not CSV text in UTF-8 ({error}); write it again.") from error
    return [(x, y) for x, y, _ in rows], [name for _, _, name in rows]


def _rows(path: Path, stream: TextIO) -> Iterator[tuple[float, float, str | None]]:
    lines = csv.reader(stream)
    header = [name.strip() for name in next(lines, [])]
    if header.count("x") != 1 or header.count("y") != 1 or header.count("class") > 1:
        raise SlideError(
            f"{path}: the header is {','.join(header)[:80]!r}; expected comma-separated columns x, y and "
            "optionally class, each once, in level-0 pixels."
        )
    x_at, y_at = header.index("x"), header.index("y")
    class_at = header.index("class") if "class" in header else None
    for row in lines:
        if not row:
            continue
        if len(row) != len(header):
            raise SlideError(
                f"{path}, line {lines.line_num}: {len(row)} values; expected {len(header)} as in the header."
            )
        x, y = (_number(path, lines.line_num, column, row[at]) for column, at in (("x", x_at), ("y", y_at)))
        name = "" if class_at is None else row[class_at].strip()
        yield x, y, name or None


def _number(path: Path, line: int, column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SlideError(
            f"{path}, line {line}: {column} is {text[:40]!r}; expected level-0 pixels such as 103.5."
        ) from None


def read_matlab(path: Path) -> PointList:
    """Points of a MATLAB file: the N x 2 array ``detection``, or the only N x 2 array.

    Returns:
        Positions as written (x, then y), and no class.

    Raises:
        SlideError: The file is unreadable or holds no such array.
    """
    check_readable(path)
    wanted = "array of N x 2 numbers"
    array = read_variable(path, "detection", wanted, lambda shape: len(shape) == 2 and shape[1] == 2)
    if array.size == 0:
        return [], []
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iuf":
        raise SlideError(
            f"{path}: 'detection' holds {array.dtype} values of shape {array.shape}; expected an {wanted}, "
            "x then y in level-0 pixels."
        )
    return array, [None] * len(array)
