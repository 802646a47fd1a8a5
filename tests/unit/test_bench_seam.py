"""The bench of seams: where edges are, pieces that are predicted as said, and what it counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from karyon.bench.seam import ALONE, BLENDED, HALO, MODEL, PATCH_PX, Way, count_wrong, measure_seam
from karyon.inference.predict import Predictor, input_layer
from karyon.io.sheets import read_sheet
from karyon.io.slides import open_slide
from karyon.models.card import model_folder, read_card
from karyon.models.weights import load_model
from karyon.nuclei.decode import map_level
from karyon.tiles.grid import Grid, read_window
from karyon.training.stains import image_stains

SIDE = 288
# The image's pixels are those of the model.
MPP = read_card(model_folder(MODEL)).mpp


@pytest.fixture
def data(
    tmp_path: Path,
    stain_image: Callable[[np.ndarray, np.ndarray], np.ndarray],
    known_stains: np.ndarray,
    glass: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The sheet of one image of ``SIDE`` pixels, of noise in two stains, with two nuclei."""
    folder = tmp_path / "kumar30"
    folder.mkdir()
    image = np.tile(stain_image(known_stains, glass), (4, 3, 1))[:SIDE, :SIDE]
    Image.fromarray(image).save(folder / "image.png")
    instances = np.zeros((SIDE, SIDE), np.uint8)
    instances[100:140, 100:140], instances[150:200, 90:180] = 1, 2
    Image.fromarray(instances).save(folder / "map.png")
    row = {"image_id": "one", "image": "image.png", "mpp": MPP, "split": "TeD1"}
    row |= {"annotations": "map.png", "annotation_format": "instance_png"}
    pd.DataFrame([row]).to_csv(folder / "kumar30.tsv", sep="\t", index=False)
    monkeypatch.setenv("KARYON_DATA", str(tmp_path))
    return folder / "kumar30.tsv"


def test_distance_is_to_the_nearest_edge_of_a_piece() -> None:
    # Cores meet between pixels 3 and 4; blended pieces of 8 end at 2 and 6, their halos included.
    np.testing.assert_array_equal(Way(4, 2, "halo").distance(2, 8)[1], [0, 1, 1, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(Way(4, 2, "weighted").distance(2, 8)[0], [1, 0, 0, 1, 1, 0, 0, 1])
    assert Way(4, 0, "halo").distance(8, 8)[1:3, 1:3].tolist() == [[1, 1], [1, 1]]


def test_counts_are_those_of_patches_predicted_by_hand(data: Path) -> None:
    images = read_sheet(data)
    table, difference = count_wrong(MODEL, images)
    assert difference == 0
    halo = table[table["way"] == HALO]
    assert (halo["wrong"] == halo["wrong_whole"]).all()
    inner = SIDE - PATCH_PX
    assert (table.groupby("way")["pixels"].sum() == inner**2).all()
    assert table.loc[table["way"] == BLENDED, "distance_px"].max() == 31

    network, card = load_model(model_folder(MODEL))
    predictor = Predictor(network, card.output, torch.device("cpu"), 1)
    with open_slide(images["path"][0], MPP) as slide:
        grid = Grid.of_slide(slide.facts, card.mpp)
        inputs = input_layer(card, image_stains(images["path"][0], MPP, "HE"), "hematoxylin")
        corners = [(0, 0), (128, 0), (0, 128), (128, 128)]  # x and y
        patches = [read_window(slide, grid, x, y, 128, 128).copy() for x, y in corners]
        one, right, below, last = (maps[0] for maps in predictor.predict(iter(patches), inputs))
    found = np.block([[one, right], [below, last]]) >= map_level(card.decoding.threshold)
    wrong = found != (np.asarray(Image.open(data.parent / "map.png"))[:256, :256] > 0)
    expected = np.zeros((2, 64), int)
    for y, x in np.ndindex(inner, inner):
        y, x = y + 64, x + 64
        nearest = min(abs(place + 0.5 - edge) for place in (y, x) for edge in (0, 128, 256))
        expected[:, int(nearest)] += 1, wrong[y, x]
    alone = table[table["way"] == ALONE]
    np.testing.assert_array_equal(alone[["pixels", "wrong"]].to_numpy().T, expected)
    assert expected[1].sum() > 500


def test_bench_gives_a_figure_for_each_way_a_table_and_a_picture(data: Path, tmp_path: Path) -> None:
    alone, blended, halo, exact = measure_seam(tmp_path / "cache", 1)
    assert (alone.name, blended.name, halo.name) == ("seam.alone", "seam.blended", "seam.halo")
    assert halo.ratio == 1
    assert (exact.value, exact.met) == (0, True)
    table = pd.read_csv(tmp_path / "cache" / "seam.csv")
    near = table[(table["way"] == ALONE) & (table["distance_px"] < 4)]
    assert alone.value == pytest.approx(100 * near["wrong"].sum() / near["pixels"].sum())
    assert Image.open(tmp_path / "cache" / "seam.png").size[0] > 600


def test_bench_is_skipped_with_a_reason_where_there_is_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KARYON_DATA", str(tmp_path / "none"))
    assert list(measure_seam(tmp_path, 1)) == []
    assert f"there is no {tmp_path / 'none' / 'kumar30' / 'kumar30.tsv'}" in capsys.readouterr().err
