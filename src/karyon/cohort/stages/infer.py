"""Stage `infer`: tile predictions of a slide, on a GPU or on CPU threads."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache, partial

import numpy as np
import torch
import zarr
from tqdm import tqdm

from karyon.cohort.shard import SlideTask, StageResult
from karyon.cohort.stages.stain import read_fit
from karyon.cohort.stages.tissue import TissueFiles, open_planned
from karyon.errors import KaryonError, SlideError
from karyon.inference.predict import Predictor, input_layer
from karyon.inference.reader import read_tiles
from karyon.models.card import ModelCard, load_model, model_folder
from karyon.models.folding import fold_batch_norm
from karyon.tiles.grid import Grid
from karyon.tiles.layout import TileLayout, tissue_tiles
from karyon.tiles.store import create_array, create_store


def infer_slide(task: SlideTask) -> StageResult:
    """Predict every tile that touches tissue.

    Settings: ``tile_px`` and ``batch_size`` of the configuration's ``infer``, ``channel`` of its
    ``stain``, name or folder of the model, and what of its card the map depends on.
    """
    settings = task.settings
    predictor, card = _predictor(settings["model"], settings["batch_size"], task.threads, task.gpus)
    tissue = TissueFiles.read(task.files)
    grid = Grid.of_slide(tissue.facts, card.mpp)
    layout = TileLayout.of_grid(grid, settings["tile_px"], card.halo_px, card.stride)
    tiles = tissue_tiles(tissue.mask, tissue.mask_grid, grid, layout)
    try:
        inputs = input_layer(card, read_fit(task.files), settings["channel"])
    except ValueError as error:
        raise SlideError(f"{task.row.path}: stain.channel is {settings['channel']}, but {error}") from error
    # On CPU the network uses the cores; decoding beside it needs about one in four.
    readers = task.threads if task.gpus else max(1, task.threads // 2)
    readers = 1 if tissue.facts.vendor == "image" else readers  # a plain image is decoded once per reader
    open_again = partial(open_planned, task.row)
    start = time.perf_counter()
    images = read_tiles(open_again, grid, layout, tiles, readers, ahead=2 * predictor.batch_size + readers)
    attributes = {"grid": asdict(grid), "layout": asdict(layout), "tiles": tiles.tolist()}
    with create_store(task.files.tiles, attributes) as store:
        missing = _write_maps(
            store, predictor.predict(images, inputs), len(tiles), layout.window, task.row.slide_id
        )
    if missing == len(tiles):
        raise SlideError(
            f"{task.row.path}: none of its {missing} tiles could be decoded; copy the file again"
        )
    seconds = time.perf_counter() - start
    scanned = len(tiles) * (layout.core * grid.scale) ** 2 / 1e9
    return StageResult(
        warning=f"{missing} of {len(tiles)} tiles could not be decoded" if missing else "",
        facts={
            "tiles": len(tiles),
            "missing_tiles": missing,
            "gpx_per_min": round(scanned / seconds * 60, 5),
        },
        outputs=(task.files.tiles,),
    )


def _write_maps(
    store: zarr.Group, maps: Iterator[np.ndarray | None], tiles: int, window: int, name: str
) -> int:
    """Write predictions as they come; returns how many tiles are missing."""
    predictions = create_array(store, "predictions", (tiles, window, window), (1, window, window))
    missing = []
    bar = tqdm(maps, total=tiles, desc=name, unit="tile", disable=None, mininterval=1, file=sys.stderr)
    for number, values in enumerate(bar):
        if values is None:
            missing.append(number)
        else:
            predictions[number] = values
    lost = create_array(store, "missing", (tiles,), (tiles,))
    lost[:] = np.isin(np.arange(tiles), missing).astype(np.uint8)
    return len(missing)


def read_layout(store: zarr.Group) -> tuple[Grid, TileLayout, np.ndarray]:
    """Grid, tiles' layout, and ``(n, 3)`` tiles of a store of tile predictions."""
    attributes = store.attrs.asdict()
    grid, layout = Grid(**attributes["grid"]), TileLayout(**attributes["layout"])  # type: ignore[arg-type]
    return grid, layout, np.asarray(attributes["tiles"], dtype=np.float64).reshape(-1, 3)


@lru_cache(maxsize=1)
def _predictor(model: str, batch_size: int, threads: int, gpus: int) -> tuple[Predictor, ModelCard]:
    """The model, loaded once per job."""
    torch.set_num_threads(threads)
    if gpus and not torch.cuda.is_available():
        raise KaryonError(
            "the job was given a GPU but torch sees none: check the node's driver, or run with "
            "--set-resources infer:gpu=0"
        )
    network, card = load_model(model_folder(model))
    network = fold_batch_norm(network)
    if gpus:
        return Predictor(network, card.output, torch.device("cuda"), batch_size), card
    # One tile at a time: a batch gains nothing on a CPU, and arrays as large as its are given back to the
    # system after every layer, whose pages then cost as much as the arithmetic (docs/design.md).
    return Predictor(network, card.output, torch.device("cpu"), 1), card
