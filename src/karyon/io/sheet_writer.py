"""Cohort sheets written from a folder of slides."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from itertools import chain, count
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from karyon.errors import SheetError
from karyon.io.atomic import atomic_path
from karyon.io.schemas import load_schema, show_value
from karyon.io.sheets import CONTROL, FILE_COLUMNS, MAX_MISTAKES, sheet_extension

logger = logging.getLogger(__name__)

# What OpenSlide 4.0 opens, and plain images.
SLIDE_EXTENSIONS = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".dcm", ".czi"}
    | {".png", ".jpg", ".jpeg"}
)


def sheet_from_folder(folder: Path) -> pd.DataFrame:
    """A cohort sheet of every slide and image in a folder and its subfolders.

    Hidden files are skipped and links to folders are not followed. A folder's DICOM files count as one
    slide, and JPEG files beside a Hamamatsu VMS or VMU index as parts of it.

    Args:
        folder: Where to look.

    Returns:
        A frame as of :func:`read_sheet`, sorted by path, with safe and unique ids and an empty ``mpp``.

    Raises:
        SheetError: There is no such folder, no slide in it, or a file name that no sheet can hold.
    """
    root = Path(folder).resolve()
    if not root.is_dir():
        raise SheetError(f"{folder}: there is no such folder; expected one with slides in it.")
    files = _slide_files(root)
    names = [file.relative_to(root).as_posix() for file in files]
    refused = [name for name in names if name[0].isspace() or CONTROL.search(f"{root}/{name}")]
    if refused:
        unfit = ", ".join(show_value(name) for name in refused[:MAX_MISTAKES])
        raise SheetError(f"{folder}: {len(refused)} file names cannot stand in a sheet; rename {unfit}.")
    if not files:
        raise SheetError(f"{folder}: no slides found; looked for {', '.join(sorted(SLIDE_EXTENSIONS))}.")
    frame = pd.DataFrame({"slide_id": _safe_ids(names), "path": [str(file) for file in files]}, dtype=str)
    for column, rules in load_schema("cohort")["properties"].items():
        if column not in frame:
            frame[column] = np.nan if rules["default"] is None else rules["default"]
    return frame


def _slide_files(root: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise SheetError(f"{error.filename}: the folder cannot be listed ({error.strerror}).") from error

    found: list[Path] = []
    left_out = 0
    for parent, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = [Path(parent, name) for name in sorted(names) if not name.startswith(".")]
        kinds = {file: file.suffix.lower() for file in files if file.suffix.lower() in SLIDE_EXTENSIONS}
        parts = {".jpg", ".jpeg", ".dcm"} if {".vms", ".vmu"} & set(kinds.values()) else {".dcm"}
        dicom = [file for file, kind in kinds.items() if kind == ".dcm"]
        found += [file for file, kind in kinds.items() if kind not in parts and file.is_file()] + dicom[:1]
        left_out += len(dicom[1:])
    if left_out:
        logger.warning("%d .dcm files left out: those in one folder are taken for one slide", left_out)
    return sorted(found)


def _safe_ids(names: list[str]) -> list[str]:
    """An id for each relative path: its stem where no other file has it, else the whole path."""
    stems = [_safe_id(PurePosixPath(name).stem) for name in names]
    counts = Counter(stems)
    taken: set[str] = set()
    ids = []
    for name, stem in zip(names, stems, strict=True):
        wanted = stem if counts[stem] == 1 else _safe_id(name)
        numbered = chain([wanted], (f"{wanted}_{number}" for number in count(2)))
        ids.append(next(one for one in numbered if one not in taken and (one == stem or one not in counts)))
        taken.add(ids[-1])
    return ids


def _safe_id(text: str) -> str:
    characters = re.sub(r"[^A-Za-z0-9._-]+", "_", text)
    # 190 of the schema's 200 characters leave room for the number that makes an id unique.
    return re.sub(r"\.{2,}", ".", characters).lstrip("._-")[:190] or "slide"


def write_sheet(frame: pd.DataFrame, path: Path) -> None:
    """Write a sheet with its paths relative to its folder, whole or not at all.

    Args:
        frame: As of :func:`read_sheet`.
        path: TSV or CSV by its extension, optionally ``.gz``; replaced where it exists.

    Raises:
        SheetError: The extension is not a sheet's.
    """
    separator = "," if sheet_extension(path) == ".csv" else "\t"
    folder = path.parent.resolve()
    for column in FILE_COLUMNS:
        relative = [os.path.relpath(file, folder) if file else "" for file in frame[column]]
        frame = frame.assign(**{column: relative})
    # Without a time in the gzip header, the same sheet is the same bytes.
    compression = {"method": "gzip", "mtime": 0} if path.suffix.lower() == ".gz" else None
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, sep=separator, index=False, compression=compression)
