"""Training images: what the network sees in training is what it sees on a slide, and no patient leaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from karyon.errors import KaryonError
from karyon.inference.predict import input_layer
from karyon.io.sheets import read_sheet
from karyon.io.slides import open_slide
from karyon.models.card import Decoding, ModelCard
from karyon.stain.channels import INPUT_CHANNELS
from karyon.stain.inputs import network_input
from karyon.stain.sample import separate_slide
from karyon.tiles.grid import Grid, read_window
from karyon.tissue.mask import tissue_mask
from karyon.tissue.thumbnail import read_thumbnail
from karyon.training.data import check_splits, load_datasets, load_image
from karyon.training.experiment import Dataset, Experiment, Optimiser, Schedule

CENTRES = np.array([(20.0, 30.0), (60.0, 25.0), (100.5, 70.5)])


def experiment(sheet: Path | str = "", **changes: Any) -> Experiment:
    settings: dict[str, Any] = {
        "name": "tiny",
        "datasets": (Dataset(str(sheet), ("TD",), ("VD",)),),
        "mpp": 0.25,
        "input": "H-C",
        "architecture": "unet",
        "target": "full_mask",
        "loss": "dice",
        "decoding": "components",
        "steps": 1,
        "batch": 1,
        "crop_px": 16,
        "optimiser": Optimiser("adam", 0.01),
        "schedule": Schedule("constant"),
        "validate_every": 1,
        "licence": "",
    }
    return Experiment(**settings | changes)


@pytest.fixture
def folder(
    tmp_path: Path,
    stain_image: Callable[[np.ndarray, np.ndarray], np.ndarray],
    known_stains: np.ndarray,
    glass: np.ndarray,
) -> Path:
    """Two equal images of 128 x 96 pixels, and discs of radius 6 about ``CENTRES`` in every kind of file."""
    for name in ("TD", "VD"):
        Image.fromarray(stain_image(known_stains, glass)).save(tmp_path / f"{name}.png")
    y, x = np.mgrid[:96, :128]
    instances = np.zeros((96, 128), np.uint16)
    for number, (cx, cy) in enumerate(CENTRES, start=1):
        instances[np.hypot(x - cx, y - cy) <= 6] = number
    Image.fromarray(instances).save(tmp_path / "map.png")
    Image.fromarray(instances.repeat(2, axis=0).repeat(2, axis=1)).save(tmp_path / "fine.png")
    pd.DataFrame(CENTRES, columns=["x", "y"]).to_csv(tmp_path / "points.csv", index=False)
    angles = np.linspace(0, 2 * np.pi, 65)
    circle = 6 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for name, kind, coordinates in (
        ("outlines", "Polygon", [[(centre + circle).tolist()] for centre in CENTRES]),
        ("points", "Point", CENTRES.tolist()),
    ):
        features = [
            {"type": "Feature", "properties": {}, "geometry": {"type": kind, "coordinates": place}}
            for place in coordinates
        ]
        collection = {"type": "FeatureCollection", "features": features}
        (tmp_path / f"{name}.geojson").write_text(json.dumps(collection))
    return tmp_path


def sheet(folder: Path, **columns: str) -> Path:
    """A sheet with the image in training and, under another patient, in validation."""
    cells = {"annotations": "map.png", "annotation_format": "instance_png", "annotation_mpp": ""} | columns
    rows = [
        {"image_id": f"image_{split}", "image": f"{split}.png", "mpp": "0.25", "stain": "HE"}
        | {"split": split, "patient": f"patient_{split}"}
        | cells
        for split in ("TD", "VD")
    ]
    pd.DataFrame(rows).to_csv(folder / "sheet.tsv", sep="\t", index=False)
    return folder / "sheet.tsv"


@pytest.mark.parametrize("name", INPUT_CHANNELS)
@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_training_input_is_the_slide_workflows_to_the_last_bit(folder: Path, name: str, mpp: float) -> None:
    row = read_sheet(sheet(folder)).iloc[0]
    image = load_image(row, experiment(input=name, mpp=mpp), 0)
    with open_slide(row["path"], row["mpp"]) as slide:
        thumbnail, _ = read_thumbnail(slide, 8.0)
        fit = separate_slide(slide, tissue_mask(thumbnail, 8.0, "otsu", 0.0), thumbnail, "HE", 200_000)
        grid = Grid.of_slide(slide.facts, mpp)
        rgb = read_window(slide, grid, 0, 0, grid.width, grid.height)
    target = {"stain_matrix": [[0.4908, 0.2514], [0.7647, 0.8241], [0.4175, 0.5076]], "p99": [2.48, 1.16]}
    card = ModelCard("m", "unet", {}, name, mpp, 8, 2, "probability", Decoding("components", 0.5))
    card = ModelCard(**{**card.__dict__, "target_stain": target})
    expected = input_layer(card, fit, "hematoxylin")(torch.from_numpy(rgb[None].copy()))
    found = network_input(image.inputs[None], name)
    assert found.shape == (1, INPUT_CHANNELS[name], grid.height, grid.width)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("annotations", "annotation_format", "annotation_mpp"),
    [
        ("map.png", "instance_png", ""),
        ("fine.png", "instance_png", "0.125"),
        ("outlines.geojson", "geojson", ""),
        ("points.csv", "points_csv", ""),
        ("points.geojson", "geojson", ""),
    ],
)
def test_every_kind_of_annotation_gives_centres_and_target(
    folder: Path, annotations: str, annotation_format: str, annotation_mpp: str
) -> None:
    path = sheet(
        folder,
        annotations=annotations,
        annotation_format=annotation_format,
        annotation_mpp=annotation_mpp,
    )
    # A centre stands for a disc of 3 um, which is 6 pixels in radius, as the areas are.
    settings = experiment(target_arguments={"diameter_um": 3.0}, mpp=0.5)
    image = load_image(read_sheet(path).iloc[0], settings, 0)
    assert (image.image_id, image.patient, image.dataset, image.mpp) == ("image_TD", "patient_TD", 0, 0.25)
    np.testing.assert_allclose(image.truth, CENTRES, atol=0.3)
    np.testing.assert_allclose(image.points, (image.truth + 0.5) / 2 - 0.5)
    assert (image.target.dtype, image.target.shape) == (torch.float32, (1, 48, 64))
    y, x = np.mgrid[:48, :64]
    distance = np.min([np.hypot(2 * x + 0.5 - cx, 2 * y + 0.5 - cy) for cx, cy in CENTRES], axis=0)
    assert (image.target[0].numpy()[distance < 5] == 1).all()
    assert (image.target[0].numpy()[distance > 7] == 0).all()


@pytest.mark.parametrize("first", ["outlines", "points"])
def test_points_among_outlines_are_named_and_neither_is_lost(folder: Path, first: str) -> None:
    outlines, points = (
        json.loads((folder / f"{name}.geojson").read_text())["features"] for name in ("outlines", "points")
    )
    features = [*outlines, points[0]] if first == "outlines" else [points[0], *outlines]
    (folder / "mixed.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    row = read_sheet(sheet(folder, annotations="mixed.geojson", annotation_format="geojson")).iloc[0]
    number = features.index(points[0]) + 1
    message = rf"mixed\.geojson, feature {number}: a point, one of 1 among 3 outlines; .* Delete the points"
    with pytest.raises(KaryonError, match=message):
        load_image(row, experiment(), 0)


def test_targets_arguments_reach_the_target(folder: Path) -> None:
    row = read_sheet(sheet(folder, annotations="points.csv", annotation_format="points_csv")).iloc[0]
    image = load_image(row, experiment(target="proximity_map", target_arguments={"peak": 7.0}), 0)
    assert float(image.target.max()) == pytest.approx(7.0)  # the first centre lies on a pixel's


def test_outlines_come_with_their_maps_and_instances(folder: Path) -> None:
    row = read_sheet(sheet(folder)).iloc[0]
    outlines = {"target": "nucleus_distance", "loss": "nucleus_distance", "decoding": "watershed"}
    image = load_image(row, experiment(**outlines), 0)
    height, width = image.grid.height, image.grid.width
    assert (image.target.dtype, image.target.shape) == (torch.float32, (2, height, width))
    assert image.instances is not None
    assert np.unique(image.instances).tolist() == list(range(len(CENTRES) + 1))
    np.testing.assert_array_equal(image.instances > 0, image.target[0] > 0)
    assert load_image(row, experiment(), 0).instances is None


def test_classes_of_points_reach_the_target(folder: Path) -> None:
    named = pd.DataFrame(CENTRES, columns=["x", "y"]).assign(**{"class": ["stroma", "", "mitosis"]})
    named.to_csv(folder / "points.csv", index=False)
    points = sheet(folder, annotations="points.csv", annotation_format="points_csv")
    joint = {"target": "classes_contour", "loss": "joint", "decoding": "dilation"}
    settings = experiment(points, classes=("tumour", "stroma"), **joint)
    image = load_image(read_sheet(points).iloc[0], settings, 0)
    assert image.class_name == ("stroma", None, "mitosis")
    assert image.instances is None
    hearts = np.rint(CENTRES).astype(int)
    # Of a nucleus whose class is not named, or is not among the experiment's, it is not known which.
    assert image.target[1:3, hearts[:, 1], hearts[:, 0]].T.tolist() == [[0, 1], [1, 1], [1, 1]]
    with pytest.raises(
        KaryonError, match=r"no nucleus .* class 'tumour'; their annotations name 'mitosis', 'st"
    ):
        load_datasets(settings)
    assert load_datasets(experiment(points, classes=("stroma",), **joint))


def test_datasets_are_read_by_split(folder: Path) -> None:
    images, validation = load_datasets(experiment(sheet(folder)))
    assert [image.image_id for image in images] == ["image_TD"]
    assert [image.image_id for image in validation] == ["image_VD"]


def test_split_that_no_image_has_is_named(folder: Path) -> None:
    path = sheet(folder)
    with pytest.raises(
        KaryonError, match=r"sheet\.tsv: no image has the split 'TeD'; the sheet has 'TD', 'VD'"
    ):
        load_datasets(experiment(datasets=(Dataset(str(path), ("TD",), ("TeD",)),)))


def test_image_without_annotations_is_named(folder: Path) -> None:
    path = sheet(folder, annotations="", annotation_format="")
    with pytest.raises(KaryonError, match="image image_TD: the sheet names no annotations"):
        load_datasets(experiment(path))


def test_image_of_which_a_region_is_annotated_is_refused(folder: Path) -> None:
    path = sheet(folder, region="outlines.geojson", region_format="geojson")
    with pytest.raises(KaryonError, match="image image_TD: only its region is annotated"):
        load_datasets(experiment(path))


def frame(*rows: tuple[str, str, str], folder: str = "/data") -> pd.DataFrame:
    sheet = pd.DataFrame(rows, columns=["slide_id", "patient", "split"])
    return sheet.assign(path=[f"{folder}/{name}.png" for name in sheet["slide_id"]])


ONE, OTHER = Dataset("one", ("TD",), ("VD",)), Dataset("other", ("train",), ("val",))


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (
            [("a", "p", "TD"), ("b", "p", "VD")],
            [],
            r"patient p \(a and b\) is trained on in split TD of one and validated on in split VD of one",
        ),
        (
            [("a", "p", "TD"), ("b", "p", "TeD1")],
            [],
            r"patient p \(a and b\) is trained on in split TD of one and held back in split TeD1 of one",
        ),
        (
            [("a", "p", "VD")],
            [("b", "p", "train")],
            r"patient p \(b and a\) is trained on in split train of other and validated on in split VD",
        ),
        (
            [("a", "p", "TeD1")],
            [("a", "", "train")],
            "image a is trained on in split train of other and held back in split TeD1 of one",
        ),
        (
            [("a", "", "TD")],
            [("a", "", "val")],
            "image a is trained on in split TD of one and validated on in split val of other",
        ),
    ],
)
def test_leak_is_named(one: list[tuple], other: list[tuple], message: str) -> None:
    sheets = [frame(*one), frame(*other)]
    with pytest.raises(KaryonError, match=message) as caught:
        check_splits([ONE, OTHER], sheets)
    assert str(caught.value).endswith("\nKeep each patient on one side: correct the column split.")


def test_every_leak_is_named() -> None:
    sheets = [frame(("a", "p", "TD"), ("b", "p", "VD"), ("c", "q", "TD"), ("d", "q", "TeD")), frame()]
    with pytest.raises(KaryonError) as caught:
        check_splits([ONE, OTHER], sheets)
    assert len(str(caught.value).splitlines()) == 3


def test_what_is_no_leak_passes() -> None:
    one = frame(("a", "p", "TD"), ("b", "p", "TD"), ("c", "q", "VD"), ("d", "q", "TeD"), ("e", "p", ""))
    # Patients that are not known are not all the same one, and an image may be trained on twice.
    other = frame(("a", "p", "train"), ("f", "", "train"), ("g", "", "val"), ("h", "", "test"))
    check_splits([ONE, OTHER], [one, other])


def test_equal_ids_of_different_files_are_different_images() -> None:
    one = frame(("1", "", "TD"), ("2", "", "VD"))
    check_splits([ONE, OTHER], [one, frame(("1", "", "test"), ("2", "", "train"), folder="/more")])


def test_one_file_is_one_image_whatever_it_is_called(folder: Path) -> None:
    (folder / "link.png").symlink_to("TD.png")
    one = frame(("a", "", "TD")).assign(path=str(folder / "TD.png"))
    other = frame(("b", "", "val")).assign(path=str(folder / "link.png"))
    with pytest.raises(KaryonError, match=r"TD\.png \(a and b\) is trained on in split TD of one and valid"):
        check_splits([ONE, OTHER], [one, other])
    both = pd.concat([one, other.assign(split="VD")])
    with pytest.raises(KaryonError, match=r"TD\.png \(a and b\) is trained on"):
        check_splits([ONE], [both])


def test_the_split_of_the_paper_has_no_leak(real_file: Callable[[str], Path]) -> None:
    kumar = read_sheet(real_file("kumar30/kumar30.tsv"), check_files=False)
    check_splits([Dataset("kumar30", ("TD",), ("VD",))], [kumar])
    leaking = kumar.copy()
    trained = kumar.loc[kumar["split"] == "TD", "patient"].iloc[0]
    leaking.loc[leaking.index[leaking["split"] == "TeD2"][0], "patient"] = trained
    with pytest.raises(KaryonError, match=f"patient {trained}"):
        check_splits([Dataset("kumar30", ("TD",), ("VD",))], [leaking])
