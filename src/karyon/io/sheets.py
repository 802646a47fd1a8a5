"""Cohort sheets: read, with every mistake found at once."""

from __future__ import annotations

import csv
import gzip
import os
import re
import stat
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from karyon.errors import SheetError
from karyon.io.schemas import allowed_values, did_you_mean, load_schema, show_value

SHEET_EXTENSIONS = (".tsv", ".csv", ".txt")
MAX_MISTAKES = 50
# No sheet of slides is wider; a binary file is stopped here before it fills the memory.
MAX_COLUMNS, MAX_LINE_BYTES = 1000, 1 << 20
# A scanner's camera has pixels of about 10 microns: mpp times the objective's magnification is about 10.
MPP_AT_1X = 10.0
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# Line ends and their like, and bytes that are not UTF-8, would break the tables that a cell is written to.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
FILE_COLUMNS = ("path", "annotations", "region")
MPP_COLUMNS = ("mpp", "annotation_mpp")
PORTION = 32


@dataclass
class _Sheet:
    """A sheet as written, and its mistakes.

    Attributes:
        path: The file.
        rows: The rows in the file that hold a slide, the header being row 1.
        cells: For each canonical column the sheet has, its cells by row.
        names: For each of these columns the name that messages use.
        mistakes: Row and text of each.
    """

    path: Path
    rows: list[int] = field(default_factory=list)
    cells: dict[str, dict[int, str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    mistakes: list[tuple[int, str]] = field(default_factory=list)

    def mistake(self, row: int, text: str) -> None:
        self.mistakes.append((row, text))

    def wrong_cell(self, row: int, column: str, what: str) -> None:
        self.mistake(row, f"{self.names[column]} is {show_value(self.cells[column][row])}; {what}.")

    def filled(self, column: str) -> dict[int, str]:
        """The cells of a column that are not empty; none where the sheet has no such column."""
        return {row: cell for row, cell in self.cells.get(column, {}).items() if cell}

    def raise_mistakes(self) -> None:
        """Raise one SheetError that lists the mistakes by row; return where there are none."""
        if not self.mistakes:
            return
        safe = re.compile(load_schema("cohort")["properties"]["slide_id"]["pattern"])
        lines = []
        for row, text in sorted(self.mistakes, key=lambda mistake: mistake[0])[:MAX_MISTAKES]:
            slide_id = self.cells.get("slide_id", {}).get(row, "")
            shown = f" (slide_id {slide_id})" if safe.fullmatch(slide_id) else ""
            lines.append(f"{self.path}, row {row}{shown}: {text}")
        if len(self.mistakes) > MAX_MISTAKES:
            lines.append(f"... and {len(self.mistakes) - MAX_MISTAKES} more")
        raise SheetError("\n".join(lines))


def read_sheet(path: Path, check_files: bool = True, missing_slides: str = "error") -> pd.DataFrame:
    """A cohort sheet, checked against ``workflow/schemas/cohort.schema.yaml``.

    Args:
        path: TSV or CSV (``.tsv``, ``.csv``, ``.txt``, and each with ``.gz``), UTF-8.
        check_files: Also see that slides and annotations exist.
        missing_slides: ``error``, or ``record`` to leave slides that do not exist to the run.

    Returns:
        One row per slide, in the sheet's order, with exactly the schema's columns in its order. ``mpp``
        is float64, NaN where empty; all others are strings, the default or '' where empty; ``path``
        and ``annotations`` are absolute.

    Raises:
        SheetError: The sheet has mistakes. The message lists up to 50 of them, one a line.
    """
    sheet = _parse(Path(path))
    _check_filled(sheet)
    _check_ids(sheet)
    _check_choices(sheet)
    _check_formats(sheet)
    mpp = {column: _read_mpp(sheet, column) for column in MPP_COLUMNS}
    # The folder's own links are followed, a file's are not: a link may carry the name that tells the format.
    folder = sheet.path.parent.resolve()
    paths = {
        column: {row: os.path.normpath(folder / cell) for row, cell in sheet.filled(column).items()}
        for column in FILE_COLUMNS
    }
    if check_files:
        recorded = {"path"} if missing_slides == "record" else set()
        _check_files(sheet, {column: paths[column] for column in FILE_COLUMNS if column not in recorded})
    sheet.raise_mistakes()
    complete = pd.DataFrame({column: pd.Series(mpp[column], dtype=np.float64) for column in MPP_COLUMNS})
    columns = load_schema("cohort")["properties"]
    for column in columns.keys() - set(MPP_COLUMNS):
        cells = sheet.filled(column) | paths.get(column, {})
        complete[column] = [cells.get(row, columns[column].get("default", "")) for row in sheet.rows]
    return complete[list(columns)].reset_index(drop=True)


def _parse(path: Path) -> _Sheet:
    """Split the file into cells; rows that cannot be split, or have the wrong width, are left out."""
    sheet = _Sheet(path)
    delimiter = "," if sheet_extension(path) == ".csv" else "\t"
    header: list[str] = []
    positions: dict[str, int] = {}
    rows: dict[int, list[str]] = {}
    for row, line in _lines(path):
        try:
            text = line.decode("utf-8-sig" if row == 1 else "utf-8")
            if not header and sheet_extension(path) == ".txt":
                delimiter = "\t" if "\t" in text else ","
            # Each line on its own, so that an open quote spoils one row and not all that follow.
            cells = [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter, strict=True))]
        except (UnicodeDecodeError, csv.Error) as error:
            sheet.mistake(row, f"cannot be read ({error}); save the sheet as UTF-8 text, each quote closed.")
            if not header:
                sheet.raise_mistakes()
            continue
        if not header and any(cells):
            header = cells
            positions = _name_columns(sheet, row, header)
        elif any(cells) and len(cells) != len(header):
            sheet.mistake(row, f"{len(cells)} cells; expected {len(header)}, as in the header.")
        elif any(cells):
            rows[row] = cells
    if not rows and not sheet.mistakes:
        sheet.mistake(1, "there are no slides; expected a header and one row per slide.")
    sheet.rows = list(rows)
    for column, position in positions.items():
        sheet.cells[column] = {row: cells[position] for row, cells in rows.items()}
    return sheet


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Row number and bytes of each line, as long as the file looks like a sheet."""
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rb") as file:
            for row, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), start=1):
                if row == 1 and b"\0" in line:
                    raise SheetError(f"{path}: not a text file; expected UTF-8 TSV or CSV.")
                if len(line) == MAX_LINE_BYTES or line.count(b"\t") + line.count(b",") >= MAX_COLUMNS:
                    limits = f"{MAX_COLUMNS} columns or {MAX_LINE_BYTES:,} bytes"
                    raise SheetError(f"{path}, row {row}: more than {limits}; this is not a sheet of slides.")
                yield row, line
    except FileNotFoundError as error:
        raise SheetError(f"{path}: no such sheet; `karyon sheet DIR --output {path}` writes one.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise SheetError(f"{path}: cannot be read ({error}).") from error


def sheet_extension(path: Path) -> str:
    """The sheet's extension without ``.gz``, in lower case; SheetError where it is none of a sheet's."""
    extension = PurePosixPath(path.name.lower().removesuffix(".gz")).suffix
    if extension not in SHEET_EXTENSIONS:
        choices = f"{', '.join(SHEET_EXTENSIONS)}, or these with .gz"
        raise SheetError(f"{path}: the extension is {show_value(extension)}; expected {choices}.")
    return extension


def _name_columns(sheet: _Sheet, row: int, header: list[str]) -> dict[str, int]:
    """The position of each canonical column in the header; fills ``sheet.names``."""
    schema = load_schema("cohort")["properties"]
    known = {name: column for column in schema for name in [column, *schema[column].get("x-aliases", [])]}
    if len(header) == 1 and header[0] not in known and re.search(r"[\t,;]", header[0]):
        separator = "commas" if sheet_extension(sheet.path) == ".csv" else "tabs"
        sheet.mistake(row, f"the header is {show_value(header[0])}; expected cells separated by {separator}.")
        sheet.raise_mistakes()
    positions: dict[str, int] = {}
    for position, name in enumerate(header):
        if name not in known:
            unknown = f"column {show_value(name)} is unknown{did_you_mean(name, known)}"
            sheet.mistake(row, f"{unknown}; expected one of {', '.join(known)}.")
        elif known[name] in positions:
            sheet.mistake(
                row, f"columns {sheet.names[known[name]]!r} and {name!r} mean the same; keep one of them."
            )
        else:
            positions[known[name]] = position
            sheet.names[known[name]] = name
    if "path" not in positions:
        choices = " or ".join(name for name in known if known[name] == "path")
        sheet.mistake(row, f"there is no column {choices}; one of them is required.")
    return positions


def _check_ids(sheet: _Sheet) -> None:
    rules = load_schema("cohort")["properties"]["slide_id"]
    if "slide_id" not in sheet.cells and "path" in sheet.cells:
        sheet.cells["slide_id"] = {row: PurePosixPath(cell).stem for row, cell in sheet.cells["path"].items()}
        sheet.names["slide_id"] = "slide_id (no such column, so taken from the file name)"
    first_rows: dict[str, int] = {}
    for row, slide_id in sheet.filled("slide_id").items():
        if not re.fullmatch(rules["pattern"], slide_id):
            sheet.wrong_cell(row, "slide_id", f"expected {allowed_values(rules)}")
        if first_rows.setdefault(slide_id, row) != row:
            what = f"row {first_rows[slide_id]} has the same; expected an id of its own for every slide"
            sheet.wrong_cell(row, "slide_id", what)


def _check_filled(sheet: _Sheet) -> None:
    """Required cells are not empty, and no cell holds control characters."""
    for column, cells in sheet.cells.items():
        for row, cell in cells.items():
            if not cell and column in load_schema("cohort")["required"]:
                sheet.mistake(row, f"{sheet.names[column]} is empty; it is required.")
            elif column != "slide_id" and CONTROL.search(cell):  # ids have a stricter pattern
                sheet.wrong_cell(row, column, "expected text without control characters")


def _check_choices(sheet: _Sheet) -> None:
    """Cells of columns with an enumeration are of it; other spellings are replaced."""
    for column, rules in load_schema("cohort")["properties"].items():
        spellings = rules.get("x-value-aliases", {})
        for row, cell in sheet.filled(column).items() if "enum" in rules else ():
            sheet.cells[column][row] = spellings.get(cell, cell)
            if sheet.cells[column][row] not in rules["enum"]:
                closest = did_you_mean(cell, rules["enum"])
                sheet.wrong_cell(row, column, f"expected {allowed_values(rules)}{closest}")


def _check_formats(sheet: _Sheet) -> None:
    """Annotations and regions have a format, and formats have a file."""
    for column, of_format in (("annotations", "annotation_format"), ("region", "region_format")):
        named, formatted = sheet.filled(column), sheet.filled(of_format)
        choices = allowed_values(load_schema("cohort")["properties"][of_format])
        for row in sorted(named.keys() - formatted.keys()):
            sheet.wrong_cell(row, column, f"its {of_format} is missing, expected {choices}")
        for row in sorted(formatted.keys() - named.keys()):
            what = f"there is no file in column {column} of this row; name it, or leave the format empty"
            sheet.wrong_cell(row, of_format, what)


def _read_mpp(sheet: _Sheet, column: str) -> dict[int, float]:
    """Microns per pixel by row, NaN where empty; a magnification is converted."""
    rules = load_schema("cohort")["properties"][column]
    low, high = rules["minimum"], rules["maximum"]
    unit, example, limits = "number of microns per pixel", "0.25", f"microns per pixel from {low} to {high}"
    magnified = sheet.names.get(column) == "wsi_magnification"
    if magnified:
        limits = f"a magnification from {MPP_AT_1X / high:g} to {MPP_AT_1X / low:g}"
        unit, example = "magnification", "40"
    mpp = dict.fromkeys(sheet.rows, np.nan)
    for row, cell in sheet.filled(column).items():
        if not NUMBER.fullmatch(cell):
            with_point = cell.replace(",", ".")
            such_as = with_point if NUMBER.fullmatch(with_point) else example
            sheet.wrong_cell(row, column, f"expected a {unit} such as {such_as}")
            continue
        mpp[row] = float(cell)
        if magnified:
            mpp[row] = MPP_AT_1X / mpp[row] if mpp[row] else np.inf
        if not low <= mpp[row] <= high:
            sheet.wrong_cell(row, column, f"expected {limits}")
    return mpp


def _check_files(sheet: _Sheet, paths: dict[str, dict[int, str]]) -> None:
    # Over a network it is the waiting that takes long, so several files are asked for at once; in portions,
    # for handing a thread one file costs more than a local disk's answer.
    with ThreadPoolExecutor(16) as pool:
        for column, files in paths.items():
            named = list(files.values())
            portions = [named[start : start + PORTION] for start in range(0, len(named), PORTION)]
            problems = chain.from_iterable(pool.map(_file_problems, portions))
            for row, path, problem in zip(files, named, problems, strict=True):
                cell = sheet.cells[column][row]
                if problem and not CONTROL.search(cell):
                    where = f": {path} (relative paths start at the sheet's folder)" if cell != path else ""
                    sheet.wrong_cell(row, column, problem + where)


def _file_problems(paths: list[str]) -> list[str]:
    return [_file_problem(path) for path in paths]


def _file_problem(path: str) -> str:
    """What keeps ``path`` from being read as a file, or ''."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (thrice as fast, and there may be 30,000)
    except (FileNotFoundError, NotADirectoryError):
        return "there is no such file"
    except (OSError, ValueError) as error:
        return f"the file cannot be reached ({error})"
    if stat.S_ISDIR(mode):
        return "that is a folder, expected a file"
    return "" if stat.S_ISREG(mode) else "that is a device or pipe, expected a file"
