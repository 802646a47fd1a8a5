"""The plan: stable shards, files touched only where they change, nothing lost on the way."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest

from karyon.cohort.plan import SlideRow, number_of_shards, planned_shards, read_plan, shard_of, write_plan

COLUMNS = (
    "slide_id",
    "path",
    "mpp",
    "organ",
    "stain",
    "patient",
    "split",
    "label_quality",
    "annotations",
    "annotation_format",
    "annotation_mpp",
    "region",
    "region_format",
)


def sheet_of(folder: Path, ids: list[str], **columns: object) -> pd.DataFrame:
    """A checked sheet whose slides exist, each of its own size."""
    rows = []
    for number, slide_id in enumerate(ids):
        path = folder / f"{slide_id}.svs"
        if not path.exists():
            path.write_bytes(b"x" * (number + 1))
        row = {
            **dict.fromkeys(COLUMNS, ""),
            "slide_id": slide_id,
            "path": str(path),
            "mpp": math.nan,
            "annotation_mpp": math.nan,
            "stain": "HE",
        }
        rows.append({**row, **columns})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of every shard's file."""
    return {path.stem: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("*.tsv")}


def test_shard_of_a_slide_never_changes() -> None:
    # sha256 of the id, its first 8 bytes as a number, modulo 100: fixed for as long as cohorts exist.
    assert shard_of("TCGA-18-5592-01Z-00-DX1", 100) == "shard-00058"
    assert shard_of("slide_1", 100) == "shard-00007"


def test_shards_fill_evenly() -> None:
    counts = pd.Series([shard_of(f"slide-{number}", 20) for number in range(4000)]).value_counts()
    assert len(counts) == 20
    # Binomial: 200 with a standard deviation of 14.
    assert counts.between(200 - 5 * 14, 200 + 5 * 14).all()


def test_shard_size_1_gives_every_slide_its_own(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, ["b", "a", "c"])
    assert write_plan(sheet, tmp_path / "plan", 1) == ["a", "b", "c"]
    assert [row.slide_id for row in read_plan(tmp_path / "plan" / "b.tsv")] == ["b"]


def test_every_slide_is_planned_once(tmp_path: Path) -> None:
    ids = [f"slide-{number}" for number in range(25)]
    shards = write_plan(sheet_of(tmp_path, ids), tmp_path / "plan", 4)
    assert len(shards) <= 7
    assert shards == planned_shards(tmp_path / "plan")
    planned = [row.slide_id for shard in shards for row in read_plan(tmp_path / "plan" / f"{shard}.tsv")]
    assert sorted(planned) == sorted(ids)


def test_planning_again_touches_nothing(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, [f"slide-{number}" for number in range(12)])
    first = write_plan(sheet, tmp_path / "plan", 3)
    before = state(tmp_path / "plan")
    assert write_plan(sheet, tmp_path / "plan", 3) == first
    assert state(tmp_path / "plan") == before


def test_new_slide_rewrites_only_its_shard(tmp_path: Path) -> None:
    ids = [f"slide-{number}" for number in range(20)]
    write_plan(sheet_of(tmp_path, ids), tmp_path / "plan", 2)
    before = state(tmp_path / "plan")
    # 20 slides in shards of 2: the number of shards stays 10, though 21 slides would have had 11.
    write_plan(sheet_of(tmp_path, [*ids, "newcomer"]), tmp_path / "plan", 2)
    after = state(tmp_path / "plan")
    home = shard_of("newcomer", 10)
    assert {shard for shard in after if after[shard] != before.get(shard)} == {home}
    assert b"newcomer" in after[home][1]


def test_cohort_that_outgrows_its_shards_is_planned_anew(tmp_path: Path) -> None:
    def shards(slides: int) -> int:
        ids = [f"slide-{number}" for number in range(slides)]
        return len(write_plan(sheet_of(tmp_path, ids), tmp_path / "plan", 4))

    # A pilot of 4 slides is a shard; 8 still fit it, 9 would need three.
    assert [shards(4), shards(8), shards(9)] == [1, 1, 3]
    # 100 slides are 25 shards of 4, and those stay when slides are taken away.
    ids = [f"slide-{number}" for number in range(100)]
    write_plan(sheet_of(tmp_path, ids), tmp_path / "plan", 4)
    assert number_of_shards(tmp_path / "plan", 9, 4) == 25


def test_changed_slide_rewrites_only_its_shard(tmp_path: Path) -> None:
    ids = [f"slide-{number}" for number in range(10)]
    sheet = sheet_of(tmp_path, ids)
    write_plan(sheet, tmp_path / "plan", 2)
    before = state(tmp_path / "plan")
    (tmp_path / "slide-3.svs").write_bytes(b"another scan")
    write_plan(sheet, tmp_path / "plan", 2)
    after = state(tmp_path / "plan")
    assert {shard for shard in after if after[shard] != before[shard]} == {shard_of("slide-3", 5)}


def test_empty_shard_of_a_removed_slide_is_deleted(tmp_path: Path) -> None:
    write_plan(sheet_of(tmp_path, ["a", "b", "c"]), tmp_path / "plan", 1)
    before = state(tmp_path / "plan")
    assert write_plan(sheet_of(tmp_path, ["a", "c"]), tmp_path / "plan", 1) == ["a", "c"]
    assert state(tmp_path / "plan") == {name: before[name] for name in ("a", "c")}


def test_new_shard_size_plans_anew(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, [f"slide-{number}" for number in range(30)])
    write_plan(sheet, tmp_path / "plan", 1)
    shards = write_plan(sheet, tmp_path / "plan", 30)
    assert shards == planned_shards(tmp_path / "plan") == ["shard-00000"]


@pytest.mark.parametrize("shard_size", [1, 3])
def test_plan_gives_back_the_sheet(tmp_path: Path, shard_size: int) -> None:
    ids = ["A.1", "TCGA-18-5592-01Z-00-DX1.9A", "0_-.x", "NA", "nan", "1e5", "007", "True"]
    sheet = sheet_of(tmp_path, ids, organ="Brust, „links“ \"x\" 'y' #1 \\t", patient="NA", split=" 10 ")
    sheet["mpp"] = [0.25, math.nan, 1 / 3, 0.1 + 0.2, 0.5, 20.0, 0.05, math.nan]
    sheet["annotation_mpp"] = [math.nan, 0.5, *[math.nan] * 6]
    sheet.loc[2, ["annotations", "annotation_format"]] = [str(tmp_path / "A.1.svs"), "geojson"]
    sheet.loc[3, ["region", "region_format"]] = [str(tmp_path / "A.1.svs"), "geojson"]
    shards = write_plan(sheet, tmp_path / "plan", shard_size)
    rows = {row.slide_id: row for shard in shards for row in read_plan(tmp_path / "plan" / f"{shard}.tsv")}
    assert sorted(rows) == sorted(ids)
    for record in sheet.to_dict("records"):
        row = rows[record["slide_id"]]
        stat = Path(record["path"]).stat()
        assert (row.size, row.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
        for column in ("mpp", "annotation_mpp"):
            assert getattr(row, column) == (0.0 if math.isnan(record[column]) else record[column])
        for column in set(COLUMNS) - {"mpp", "annotation_mpp"}:
            assert getattr(row, column) == record[column], column
    assert (rows["0_-.x"].annotations_size, rows["NA"].annotations_size) == (1, 0)


def test_missing_file_is_left_to_its_stage(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, ["a"])
    (tmp_path / "a.svs").unlink()
    write_plan(sheet, tmp_path / "plan", 1)
    (row,) = read_plan(tmp_path / "plan" / "a.tsv")
    assert (row.size, row.mtime_ns) == (0, 0)


def test_columns_of_the_file_are_those_of_the_row(tmp_path: Path) -> None:
    write_plan(sheet_of(tmp_path, ["a"]), tmp_path / "plan", 1)
    header = (tmp_path / "plan" / "a.tsv").read_text().splitlines()[0]
    assert header.split("\t") == [field.name for field in fields(SlideRow)]
