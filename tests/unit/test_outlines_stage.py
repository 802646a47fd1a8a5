"""A model of outlines from slide to table: neither tiles nor blocks show."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile
import torch
from skimage.draw import polygon2mask

from karyon.bench.chain import STAGES, stage_task
from karyon.bench.material import synthetic_slide
from karyon.cohort.layout import SlideFiles
from karyon.cohort.stages import outlines
from karyon.models.card import Decoding, ModelCard, read_card
from karyon.models.registry import build, halo_and_stride
from karyon.models.weights import save_model
from karyon.nuclei.instances import decode_instances, label_map
from karyon.tiles.store import open_store

SIDE = 1000
# Weight and bias of each map's logit, after the smoothed concentration of hematoxylin.
WATERSHED = {"nucleus": (12, -6), "distance": (12, -9)}
DILATION = {"inside": (12, -9), "boundary": (4, -4), "background": (-12, 6)}
RULES = {
    "watershed": Decoding("watershed", 0.5, min_area_um2=8.0, marker_threshold=0.5),
    "dilation": Decoding("dilation", 0.5, min_area_um2=2.0, dilation_um=1.0),
}


def outline_model(folder: Path, method: str) -> Path:
    """A model that reads its maps off the smoothed concentration."""
    heads = WATERSHED if method == "watershed" else DILATION
    arguments = {"in_channels": 1, "out_channels": len(heads), "width": 1, "depth": 1}
    network = build("unet", **arguments).eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim == 4 and not name.startswith("head"):
                weight.fill_(1 / 9)
        slope, bias = torch.tensor(list(heads.values()), dtype=torch.float32).T
        network.head.weight.copy_(slope[:, None, None, None])  # type: ignore[union-attr, operator]
        network.head.bias.copy_(bias)  # type: ignore[union-attr, operator]
    halo, stride = halo_and_stride(network)
    output = "softmax" if method == "dilation" else "probability"
    card = ModelCard(
        method, "unet", arguments, "H-C", 0.5, halo, stride, output, RULES[method], maps=tuple(heads)
    )
    save_model(folder / method, network, card)
    return folder / method


@dataclass(frozen=True)
class Finished:
    """A slide after all stages."""

    slide: Path
    model: Path
    files: SlideFiles


@pytest.fixture(scope="module", params=list(RULES))
def finished(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Finished:
    folder = tmp_path_factory.mktemp("outlines")
    slide, model = synthetic_slide(folder, SIDE), outline_model(folder, request.param)
    return Finished(slide, model, run_stages(slide, model, folder / "results", tuple(STAGES), 512))


def run_stages(
    slide: Path, model: Path, results: Path, stages: tuple[str, ...], tile_px: int = 512
) -> SlideFiles:
    for stage in stages:
        task = stage_task(stage, slide, model, results)
        extra = {"tile_px": tile_px} if stage == "infer" else {"mask": True} if stage == "nuclei" else {}
        STAGES[stage](replace(task, settings={**task.settings, **extra}))
    return task.files


@pytest.mark.parametrize("block", [90, 400])
def test_blocks_do_not_show_in_the_table(
    finished: Finished, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = finished.files
    before = files.nuclei.read_bytes(), files.nuclei_mask.read_bytes()
    monkeypatch.setattr(outlines, "decode_instances", partial(decode_instances, block_px=block))
    run_stages(finished.slide, finished.model, files.nuclei.parent.parent, ("nuclei",))
    assert (files.nuclei.read_bytes(), files.nuclei_mask.read_bytes()) == before


def test_tiles_do_not_show_in_the_table(finished: Finished, tmp_path: Path) -> None:
    other = run_stages(finished.slide, finished.model, tmp_path, tuple(STAGES), 128)
    one, two = (pq.read_table(files.nuclei)["geometry"].to_pylist() for files in (finished.files, other))
    # Rounding may move a value of the map by a 255th, and with it a pixel.
    assert len(set(one) ^ set(two)) <= 0.02 * len(one)
    assert len(one) == len(two)


def test_the_table_has_the_nuclei_of_the_map(finished: Finished) -> None:
    files, card = finished.files, read_card(finished.model)
    with open_store(files.map) as store:
        maps = np.asarray(store["map"])
    assert maps.shape == (len(card.maps), SIDE // 2, SIDE // 2)
    labels, shown = label_map(maps, card.decoding, card.maps, card.mpp), maps[0] / 255
    mask = tifffile.imread(files.nuclei_mask)
    np.testing.assert_array_equal(mask > 0, labels > 0)
    table = pq.read_table(files.nuclei).to_pylist()
    assert len(table) == labels.max() > 50
    seen = set()
    for row in table:
        # Model pixel i covers level-0 pixels 2i and 2i + 1, whose centres are at integers.
        outline = (np.array(shapely.from_wkb(row["geometry"]).exterior.coords) + 0.5) / 2 - 0.5
        inside = polygon2mask(labels.shape, outline[:, ::-1]) & (labels > 0)
        number = np.bincount(labels[inside]).argmax()
        here = np.argwhere(labels == number)
        seen.add(number)
        np.testing.assert_allclose([row["y"], row["x"]], (here.mean(axis=0) + 0.5) * 2 - 0.5, atol=1e-6)
        np.testing.assert_allclose(row["area_um2"], len(here) * 0.25, rtol=1e-6)
        np.testing.assert_allclose(row["probability"], shown[labels == number].mean(), rtol=1e-5)
        assert row["hematoxylin_mean"] > row["hematoxylin_ring_mean"]
    assert len(seen) == len(table)
