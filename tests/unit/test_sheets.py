import argparse
import gzip
import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karyon.cli import sheet as sheet_command
from karyon.errors import SheetError
from karyon.io import slides
from karyon.io.schemas import REPOSITORY, load_schema
from karyon.io.sheet_writer import sheet_from_folder, write_sheet
from karyon.io.sheets import read_sheet

COLUMNS = ["slide_id", "path", "mpp", "organ", "stain", "patient", "split"]
COLUMNS += ["annotations", "annotation_format", "annotation_mpp", "region", "region_format", "label_quality"]
SAFE_NAME = (
    "a safe file name: at most 200 letters, digits, '.', '_' and '-', a letter or digit first, no '..'"
)
FORMATS = (
    "one of instance_png, instance_tiff, instance_npy, instance_mat, imagescope_xml, geojson, points_csv, "
    "points_mat"
)
NAMES = (
    "slide_id, image_id, path, wsi, image, mpp, wsi_mpp, wsi_magnification, organ, stain, patient, split, "
    "annotations, annotation_format, annotation_mpp, region, region_format, label_quality"
)
DATA = Path(os.environ.get("KARYON_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the slides and annotations that the sheets of these tests name."""
    (tmp_path / "slides").mkdir()
    for name in ("slides/a.svs", "slides/b.svs", "a.xml"):
        (tmp_path / name).touch()
    return tmp_path


def write(path: Path, *rows: str) -> Path:
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def message(path: Path, check_files: bool = True) -> str:
    with pytest.raises(SheetError) as caught:
        read_sheet(path, check_files)
    return str(caught.value).replace(str(path), "cohort.tsv").replace(str(path.parent.resolve()), "FOLDER")


def test_read_sheet_gives_the_schemas_columns_with_defaults_and_absolute_paths(folder):
    path = write(
        folder / "cohort.tsv",
        "stain\tpath\tslide_id\tmpp\tannotations\tannotation_format",
        "H&E\tslides/b.svs\tB\t0.5\ta.xml\timagescope_xml",
        f"\t{folder}/slides/../slides/a.svs\t A \t\t\t",
    )
    frame = read_sheet(path)
    assert list(frame.columns) == COLUMNS
    assert np.isnan(frame.loc[0, "annotation_mpp"])
    assert frame.drop(columns="annotation_mpp").iloc[0].tolist() == [
        *[
            "B",
            f"{folder}/slides/b.svs",
            0.5,
            "",
            "HE",
            "",
            "",
            f"{folder}/a.xml",
            "imagescope_xml",
            "",
            "",
            "",
        ]
    ]
    assert frame.loc[1, ["slide_id", "path", "stain", "annotations"]].tolist() == [
        *["A", f"{folder}/slides/a.svs", "HE", ""]
    ]
    assert frame["mpp"].dtype == np.float64
    assert np.isnan(frame.loc[1, "mpp"])


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("slide_id\tpath", "../x\tslides/a.svs", f"row 2: slide_id is '../x'; expected {SAFE_NAME}."),
        ("slide_id\tpath", "a\0b\tslides/a.svs", rf"row 2: slide_id is 'a\x00b'; expected {SAFE_NAME}."),
        ("slide_id\tpath", "-rf\tslides/a.svs", f"row 2: slide_id is '-rf'; expected {SAFE_NAME}."),
        ("slide_id\tpath", "a..b\tslides/a.svs", f"row 2: slide_id is 'a..b'; expected {SAFE_NAME}."),
        ("slide_id\tpath", "\tslides/a.svs", "row 2: slide_id is empty; it is required."),
        ("slide_id\tpath\torgan", "A\t\tlung", "row 2 (slide_id A): path is empty; it is required."),
        (
            "slide_id\tpath",
            "A\tslides/c.svs",
            "row 2 (slide_id A): path is 'slides/c.svs'; there is no such file: FOLDER/slides/c.svs "
            "(relative paths start at the sheet's folder).",
        ),
        (
            "image_id\twsi",
            "A\t/no/such.svs",
            "row 2 (slide_id A): wsi is '/no/such.svs'; there is no such file.",
        ),
        (
            "slide_id\tpath",
            "A\tslides",
            "row 2 (slide_id A): path is 'slides'; that is a folder, expected a file: FOLDER/slides "
            "(relative paths start at the sheet's folder).",
        ),
        (
            "slide_id\tpath",
            "A\tslides/\0",
            r"row 2 (slide_id A): path is 'slides/\x00'; expected text without control characters.",
        ),
        (
            "slide_id\tpath\tmpp",
            "TCGA-A1\tslides/a.svs\t0,25",
            "row 2 (slide_id TCGA-A1): mpp is '0,25'; expected a number of microns per pixel such as 0.25.",
        ),
        (
            "slide_id\tpath\tmpp",
            "A\tslides/a.svs\tnan",
            "row 2 (slide_id A): mpp is 'nan'; expected a number of microns per pixel such as 0.25.",
        ),
        (
            "slide_id\tpath\twsi_mpp",
            "A\tslides/a.svs\t40",
            "row 2 (slide_id A): wsi_mpp is '40'; expected microns per pixel from 0.05 to 20.",
        ),
        (
            "slide_id\tpath\twsi_magnification",
            "A\tslides/a.svs\t40x",
            "row 2 (slide_id A): wsi_magnification is '40x'; expected a magnification such as 40.",
        ),
        (
            "slide_id\tpath\twsi_magnification",
            "A\tslides/a.svs\t0",
            "row 2 (slide_id A): wsi_magnification is '0'; expected a magnification from 0.5 to 200.",
        ),
        (
            "slide_id\tpath\tstain",
            "A\tslides/a.svs\tIHX",
            "row 2 (slide_id A): stain is 'IHX'; expected one of HE, IHC (did you mean 'IHC'?).",
        ),
        (
            "slide_id\tpath\tannotations\tannotation_format",
            "A\tslides/a.svs\ta.xml\tqupath",
            f"row 2 (slide_id A): annotation_format is 'qupath'; expected {FORMATS}.",
        ),
        (
            "slide_id\tpath\tannotations",
            "A\tslides/a.svs\ta.xml",
            "row 2 (slide_id A): annotations is 'a.xml'; its annotation_format is missing, expected "
            f"{FORMATS}.",
        ),
        (
            "slide_id\tpath\tannotation_format",
            "A\tslides/a.svs\tgeojson",
            "row 2 (slide_id A): annotation_format is 'geojson'; there is no file in column annotations of "
            "this row; name it, or leave the format empty.",
        ),
        (
            "slide_id\tpath\tregion",
            "A\tslides/a.svs\ta.xml",
            "row 2 (slide_id A): region is 'a.xml'; its region_format is missing, expected one of "
            "instance_png, instance_tiff, instance_npy, instance_mat, imagescope_xml, geojson.",
        ),
        (
            "slide_id\tpath\tannotation_mpp",
            "A\tslides/a.svs\t0,5",
            "row 2 (slide_id A): annotation_mpp is '0,5'; expected a number of microns per pixel such as "
            "0.5.",
        ),
        (
            "slide_id\tpath\tannotations\tannotation_format",
            "A\tslides/a.svs\tb.xml\tgeojson",
            "row 2 (slide_id A): annotations is 'b.xml'; there is no such file: FOLDER/b.xml "
            "(relative paths start at the sheet's folder).",
        ),
        (
            "slide_id\tpath\tslideid",
            "A\tslides/a.svs\tx",
            f"row 1: column 'slideid' is unknown (did you mean 'slide_id'?); expected one of {NAMES}.",
        ),
        (
            "slide_id\tpath\t",
            "A\tslides/a.svs\t",
            f"row 1: column '' is unknown; expected one of {NAMES}.",
        ),
        (
            "slide_id\torgan",
            "A\tlung",
            "row 1: there is no column path or wsi or image; one of them is required.",
        ),
        ("path\twsi", "slides/a.svs\tx", "row 1: columns 'path' and 'wsi' mean the same; keep one of them."),
        (
            "path\tmpp\twsi_magnification",
            "slides/a.svs\t1\t40",
            "row 1: columns 'mpp' and 'wsi_magnification' mean the same; keep one of them.",
        ),
        (
            "slide_id,path",
            "A,slides/a.svs",
            "row 1: the header is 'slide_id,path'; expected cells separated by tabs.",
        ),
    ],
)
def test_a_mistake_is_told_with_row_column_value_and_what_is_allowed(folder, header, row, expected):
    path = write(folder / "cohort.tsv", header, row)
    assert message(path) == f"cohort.tsv, {expected}"


def test_a_duplicate_id_names_both_rows(folder):
    path = write(folder / "cohort.tsv", "slide_id\tpath", "A\tslides/a.svs", "", "A\tslides/b.svs")
    expected = "slide_id is 'A'; row 2 has the same; expected an id of its own for every slide."
    assert message(path) == f"cohort.tsv, row 4 (slide_id A): {expected}"


def test_an_unsafe_file_name_is_refused_where_the_id_is_taken_from_it(folder):
    (folder / "my slide.svs").touch()
    path = write(folder / "cohort.tsv", "wsi", "my slide.svs")
    column = "slide_id (no such column, so taken from the file name)"
    assert message(path) == f"cohort.tsv, row 2: {column} is 'my slide'; expected {SAFE_NAME}."


def test_rows_of_the_wrong_width_and_open_quotes_spoil_only_themselves(folder):
    path = write(
        folder / "cohort.tsv",
        "slide_id\tpath",
        "A\tslides/a.svs\textra",
        "B",
        'C\t"slides/a.svs',
        "D\tslides/nowhere.svs",
    )
    lines = message(path).split("\n")
    assert lines[0] == "cohort.tsv, row 2: 3 cells; expected 2, as in the header."
    assert lines[1] == "cohort.tsv, row 3: 1 cells; expected 2, as in the header."
    assert lines[2].startswith("cohort.tsv, row 4: cannot be read (")
    assert lines[3].startswith(
        "cohort.tsv, row 5 (slide_id D): path is 'slides/nowhere.svs'; there is no such"
    )
    assert len(lines) == 4


def test_all_mistakes_are_told_at_once_in_the_order_of_the_rows(folder):
    path = write(
        folder / "cohort.tsv",
        "slide_id\tpath\tmpp\tstain\torgn",
        "A\tslides/a.svs\t0,5\tXX\t",
        "A\tslides/c.svs\t99\tHE\t",
    )
    lines = message(path).split("\n")
    starts = ["row 1: column 'orgn'", "row 2 (slide_id A): stain", "row 2 (slide_id A): mpp"]
    starts += ["row 3 (slide_id A): slide_id", "row 3 (slide_id A): mpp", "row 3 (slide_id A): path"]
    assert len(lines) == len(starts)
    assert all(line.startswith(f"cohort.tsv, {start}") for line, start in zip(lines, starts, strict=True))


def test_more_than_fifty_mistakes_are_counted(folder):
    rows = [f"s{number}\tslides/a.svs\tfine" for number in range(73)]
    lines = message(write(folder / "cohort.tsv", "slide_id\tpath\tmpp", *rows)).split("\n")
    assert lines[49].startswith("cohort.tsv, row 51 (slide_id s49)")
    assert lines[50:] == ["... and 23 more"]


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"slide_id\tpath\n", b"\n\t\n"])
def test_a_sheet_without_slides_is_refused(folder, content):
    path = folder / "cohort.tsv"
    path.write_bytes(content)
    expected = "row 1: there are no slides; expected a header and one row per slide."
    assert message(path) == f"cohort.tsv, {expected}"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"PK\x03\x04\x14\x00\x08\n", "cohort.tsv: not a text file; expected UTF-8 TSV or CSV."),
        ("slide_id\tpath\nA\tb\n".encode("utf-16"), "cohort.tsv: not a text file"),
        (b"slide_id\tpath\n\xe9\tslides/a.svs\n", "cohort.tsv, row 2: cannot be read ('utf-8' codec"),
        (b"\t" * 1000 + b"\n", "cohort.tsv, row 1: more than 1000 columns"),
        (b"path\n" + b"," * 1000 + b"\n", "cohort.tsv, row 2: more than 1000 columns"),
        (b"a" * 3_000_000, "cohort.tsv, row 1: more than 1000 columns or 1,048,576 bytes"),
    ],
)
def test_a_file_that_is_no_sheet_is_refused(folder, content, expected):
    path = folder / "cohort.tsv"
    path.write_bytes(content)
    assert message(path).startswith(expected)


def test_a_huge_compressed_file_without_line_ends_is_refused_without_unpacking_it(folder):
    path = folder / "cohort.tsv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(100):
            file.write(b"a" * 1_000_000)
    tracemalloc.start()
    assert "this is not a sheet of slides" in message(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_a_sheet_that_is_missing_truncated_or_of_another_kind_is_refused(folder):
    assert message(folder / "no.tsv") == (
        "cohort.tsv: no such sheet; `karyon sheet DIR --output cohort.tsv` writes one."
    )
    assert message(folder / "cohort.xlsx").startswith("cohort.tsv: the extension is '.xlsx'; expected .tsv, ")
    (folder / "cut.tsv.gz").write_bytes(gzip.compress(b"slide_id\tpath\n" * 1000)[:-20])
    assert message(folder / "cut.tsv.gz").startswith("cohort.tsv: cannot be read (Compressed file ended")
    (folder / "plain.tsv.gz").write_bytes(b"slide_id\tpath\n")
    assert message(folder / "plain.tsv.gz").startswith("cohort.tsv: cannot be read (Not a gzipped file")


@pytest.mark.parametrize("name", ["c.tsv", "c.csv", "c.txt", "c.tsv.gz", "c.CSV.GZ", "comma.txt"])
def test_all_extensions_read_alike(folder, name):
    separator = "," if "csv" in name.lower() or name == "comma.txt" else "\t"
    rows = [["\ufeffslide_id", "path", "organ"], ["A", "slides/a.svs", '"lung, left"']]
    content = "".join(f"{separator.join(row)}\r\n" for row in rows).encode("utf-8")
    (folder / name).write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
    frame = read_sheet(folder / name)
    assert frame.loc[0, ["slide_id", "path", "organ"]].tolist() == [
        "A",
        f"{folder}/slides/a.svs",
        "lung, left",
    ]


def test_magnification_becomes_mpp_and_the_stem_becomes_the_id(folder):
    path = write(folder / "cohort.csv", "wsi,wsi_magnification", "slides/a.svs,40", "slides/b.svs,20")
    frame = read_sheet(path)
    assert frame["slide_id"].tolist() == ["a", "b"]
    assert frame["mpp"].tolist() == [0.25, 0.5]


@pytest.mark.parametrize("spelling", ["0.25", "+0.25", ".25", "2.5e-1", "00.250"])
def test_every_spelling_of_a_number_is_read(folder, spelling):
    path = write(folder / "cohort.csv", "slide_id,path,mpp", f"A,slides/a.svs,{spelling}")
    assert read_sheet(path)["mpp"].tolist() == [0.25]


def test_a_link_keeps_its_own_name(folder):
    (folder / "object").touch()
    (folder / "linked.svs").symlink_to(folder / "object")
    path = write(folder / "cohort.tsv", "path", "linked.svs")
    assert read_sheet(path)["path"].tolist() == [f"{folder}/linked.svs"]


def test_files_are_not_asked_for_where_not_wanted(folder):
    path = write(folder / "cohort.tsv", "path", "nowhere/x.svs")
    assert read_sheet(path, check_files=False)["path"].tolist() == [f"{folder}/nowhere/x.svs"]


def test_thirty_thousand_rows_are_checked_in_two_seconds(tmp_path):
    rows = [f"s{number}\tx/{number}.svs\t0.25\tHE\tlung" for number in range(30_000)]
    path = write(tmp_path / "cohort.tsv", "slide_id\tpath\tmpp\tstain\torgan", *rows)
    begin = time.process_time()
    frame = read_sheet(path, check_files=False)
    assert time.process_time() - begin < 2
    assert len(frame) == 30_000


@given(
    st.text(max_size=12)
    | st.from_regex(r"[A-Za-z0-9./\\_-]{1,12}", fullmatch=True)
    | st.from_regex(r"[A-Za-z0-9._-]{1,12}", fullmatch=True)
)
def test_an_accepted_id_never_leaves_the_folder_it_is_joined_to(tmp_path_factory, slide_id):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "property.csv"
    quoted = slide_id.replace('"', '""')
    path.write_bytes(f'slide_id,path\n"{quoted}",x.svs\n'.encode("utf-8", "surrogatepass"))
    try:
        accepted = read_sheet(path, check_files=False).loc[0, "slide_id"]
    except SheetError:
        return
    for name in (accepted, f"{accepted}.parquet"):
        joined = os.path.normpath(folder / name)
        assert os.path.split(joined) == (str(folder), name)
        assert name.isascii()


def test_the_schemas_limits_are_those_of_the_slide_reader_and_of_the_cohorts_name():
    columns = load_schema("cohort")["properties"]
    assert (columns["mpp"]["minimum"], columns["mpp"]["maximum"]) == (slides.MPP_MIN, slides.MPP_MAX)
    assert columns["slide_id"]["pattern"] == load_schema("config")["properties"]["cohort"]["pattern"]


@pytest.mark.parametrize("name", ["cpm15", "cpm17", "crchisto", "gbm40", "glioma", "kumar30"])
def test_the_sheets_of_real_datasets_read_as_they_are(name):
    path = DATA / name / f"{name}.tsv"
    if not path.is_file():
        pytest.skip(f"{path} is absent; set KARYON_DATA to the folder of the datasets")
    raw = pd.read_csv(path, sep="\t", keep_default_na=False)
    frame = read_sheet(path)
    assert frame["slide_id"].tolist() == raw["image_id"].tolist()
    assert frame["mpp"].tolist() == raw["mpp"].tolist()
    assert frame["annotation_format"].tolist() == raw["annotation_format"].tolist()
    assert frame["path"].tolist() == [str(path.parent.resolve() / image) for image in raw["image"]]


@pytest.fixture
def slide_folder(tmp_path: Path) -> Path:
    """Slides, their parts, and files that are none."""
    root = tmp_path / "root"
    names = [
        "b.svs",
        "A 1.TIFF",
        "x/same.svs",
        "y/same.ndpi",
        "y/notes.txt",
        ".hidden/z.svs",
        "y/._same.ndpi",
    ]
    names += ["dicom/2.dcm", "dicom/1.dcm", "vms/s.vms", "vms/s(1,0).jpg", "photos/p.jpg", "same.png/c.bif"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "dead.svs").symlink_to(root / "nowhere")
    return root


def test_a_folders_slides_are_found_with_safe_unique_ids(slide_folder):
    frame = sheet_from_folder(slide_folder)
    found = {str(Path(path).relative_to(slide_folder)): slide_id for slide_id, path in frame.values[:, :2]}
    assert found == {
        "A 1.TIFF": "A_1",
        "b.svs": "b",
        "dicom/1.dcm": "1",
        "photos/p.jpg": "p",
        "same.png/c.bif": "c",
        "vms/s.vms": "s",
        "x/same.svs": "x_same.svs",
        "y/same.ndpi": "y_same.ndpi",
    }
    assert list(found) == sorted(found)
    assert list(frame.columns) == COLUMNS


@pytest.mark.parametrize("name", ["c.tsv", "deep/er/c.csv", "c.tsv.gz"])
def test_a_written_sheet_is_relative_to_its_folder_and_reads_back_the_same(slide_folder, name):
    frame = sheet_from_folder(slide_folder)
    path = slide_folder.parent / name
    write_sheet(frame, path)
    pd.testing.assert_frame_equal(read_sheet(path), frame)
    raw = pd.read_csv(path, sep="," if "csv" in name else "\t")
    first = "root/A 1.TIFF" if "deep" not in name else "../../root/A 1.TIFF"
    assert raw.loc[0, "path"] == first


@given(st.lists(st.text("ab. /é", min_size=1, max_size=6).filter(lambda name: "//" not in name), unique=True))
def test_ids_from_any_file_names_are_accepted_and_unique(names):
    from karyon.io.sheet_writer import _safe_ids

    ids = _safe_ids([f"{name}.svs" for name in names])
    pattern = load_schema("cohort")["properties"]["slide_id"]["pattern"]
    assert len(set(ids)) == len(names)
    assert pd.Series(ids, dtype=object).str.fullmatch(pattern).all()


@pytest.mark.parametrize("name", ["new\nline.svs", " space.svs", os.fsdecode(b"latin\xe9.svs")])
def test_a_file_name_that_no_sheet_can_hold_is_told(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(SheetError, match=r"1 file names cannot stand in a sheet; rename '"):
        sheet_from_folder(tmp_path)


def test_a_folder_without_slides_and_no_folder_are_refused(tmp_path):
    with pytest.raises(SheetError, match=r"no slides found; looked for \.bif"):
        sheet_from_folder(tmp_path)
    with pytest.raises(SheetError, match="there is no such folder"):
        sheet_from_folder(tmp_path / "nowhere")


def run_command(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    sheet_command.configure(parser)
    return sheet_command.run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_command_writes_to_standard_output_with_absolute_paths(slide_folder, capsys):
    assert run_command(slide_folder) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[0] == "\t".join(COLUMNS)
    assert output.out.splitlines()[2].startswith(f"b\t{slide_folder}/b.svs\t\t\tHE\t")
    assert output.err.splitlines()[-1] == f"8 slides found in {slide_folder}"


def test_the_command_replaces_a_sheet_only_when_forced(slide_folder, tmp_path):
    path = tmp_path / "cohort.tsv"
    path.write_text("precious")
    with pytest.raises(SheetError, match="the sheet exists; give another name, or --force"):
        run_command(slide_folder, "--output", path)
    assert path.read_text() == "precious"
    assert run_command(slide_folder, "--output", path, "--force") == 0
    assert len(read_sheet(path)) == 8
