"""Stage `infer`: tile predictions of a slide, on a GPU or on CPU threads."""

from __future__ import annotations

import platform
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
from karyon.io.slides import DAMAGED, MAX_LOST_SHARE, SlideFacts
from karyon.models.card import ModelCard, model_folder
from karyon.models.folding import fold_batch_norm
from karyon.models.memory import use_huge_pages
from karyon.models.weights import load_model
from karyon.tiles.grid import Grid
from karyon.tiles.layout import TileLayout, tissue_tiles
from karyon.tiles.store import create_array, create_store


def infer_slide(task: SlideTask) -> StageResult:
    """Predict every tile that touches tissue.

    Settings: ``tile_px``, ``batch_size`` and ``cpu_bfloat16`` of the configuration's ``infer``, ``channel``
    of its ``stain``, name or folder of the model, and what of its card the map depends on.
    """
    settings = task.settings
    predictor, card = _predictor(
        settings["model"], settings["batch_size"], settings["cpu_bfloat16"], task.threads, task.gpus
    )
    tissue = TissueFiles.read(task.files)
    grid = Grid.of_slide(tissue.facts, card.mpp)
    layout = TileLayout.of_grid(grid, settings["tile_px"], card.halo_px, card.stride)
    (part,) = task.parts
    tiles = part_of_tiles(tissue_tiles(tissue.mask, tissue.mask_grid, grid, layout), part)
    try:
        inputs = input_layer(card, read_fit(task.files), settings["channel"])
    except ValueError as error:
        raise SlideError(f"{task.row.path}: stain.channel is {settings['channel']}, but {error}") from error
    # On CPUs decoding takes a thirtieth of what the network does.
    readers = task.threads if task.gpus else max(1, task.threads // 16)
    readers = 1 if tissue.facts.vendor == "image" else readers  # a plain image is decoded once per reader
    open_again = partial(open_planned, task.row)
    start = time.perf_counter()
    ahead = (predictor.threads or 2 * predictor.batch_size) + readers
    images = read_tiles(open_again, grid, layout, tiles, readers, ahead)
    attributes = {"grid": asdict(grid), "layout": asdict(layout), "tiles": tiles.tolist()}
    loss = _Loss(task.row.path, len(tiles) * (layout.window * grid.scale) ** 2, tissue.facts)
    with create_store(task.files.tiles_of(part), attributes) as store:
        maps = predictor.predict(loss.watch(images), inputs)
        _write_maps(
            store, maps, (len(tiles), *card.map_shape(layout.window, layout.window)), task.row.slide_id
        )
    seconds = time.perf_counter() - start
    scanned = len(tiles) * (layout.core * grid.scale) ** 2 / 1e9
    return StageResult(
        warning=f"{loss.share:.2%} of the tissue could not be decoded" if loss.share else "",
        facts={
            "tiles": len(tiles),
            "lost_share": loss.share,
            "gpx_per_min": round(scanned / seconds * 60, 5),
            "model": card.name,
            "device": torch.cuda.get_device_name() if task.gpus else "cpu",
            "threads": task.threads,
        },
        outputs=(task.files.tiles_of(part),),
    )


def part_of_tiles(tiles: np.ndarray, part: str) -> np.ndarray:
    """The tiles of a part: a band of the slide, as long as the others.

    Args:
        tiles: ``(n, 3)``, row by row.
        part: Such as ``2of4``; '' for all of them.
    """
    if not part:
        return tiles
    number, count = (int(word) for word in part.split("of"))
    return np.array_split(tiles, count)[number - 1]


class _Loss:
    """How much of what is read could not be decoded; too much of it is the slide's error at once.

    Args:
        path: The slide's file.
        area: Level-0 pixels of all tiles to come, halos included.
        facts: The slide.

    Attributes:
        share: Of ``area``, lost so far.
    """

    def __init__(self, path: str, area: float, facts: SlideFacts) -> None:
        self.share = 0.0
        self._path = path
        self._slides = facts.width * facts.height / max(area, 1)  # one slide's area in units of ours

    def watch(self, tiles: Iterator[tuple[np.ndarray, float]]) -> Iterator[np.ndarray]:
        """Pass the images on.

        Raises:
            SlideError: More is lost than a scanner's hiccup would cost.
        """
        for image, lost in tiles:
            self.share += lost * self._slides
            if self.share > MAX_LOST_SHARE:
                raise SlideError(
                    f"{self._path}: over {MAX_LOST_SHARE:.0%} of the tissue cannot be decoded: {DAMAGED}."
                )
            yield image


def _write_maps(store: zarr.Group, maps: Iterator[np.ndarray], shape: tuple[int, ...], name: str) -> None:
    """Write predictions as they come."""
    predictions = create_array(store, "predictions", shape, (1, *shape[1:]))
    bar = tqdm(maps, total=shape[0], desc=name, unit="tile", disable=None, mininterval=1, file=sys.stderr)
    for number, values in enumerate(bar):
        predictions[number] = values.reshape(shape[1:])


@lru_cache(maxsize=1)
def _predictor(
    model: str, batch_size: int, cpu_bfloat16: bool, threads: int, gpus: int
) -> tuple[Predictor, ModelCard]:
    """The model, loaded once per job."""
    if gpus and not torch.cuda.is_available():
        raise KaryonError(
            f"{platform.node()} was given a GPU but torch sees none: leave the node out with "
            "--slurm-exclude-failed-nodes until its driver is mended, or run on CPUs with "
            "--set-resources infer:gpu=0"
        )
    if not gpus:
        use_huge_pages()
    network, card = load_model(model_folder(model))
    network = fold_batch_norm(network)
    if gpus:
        return Predictor(network, card.output, torch.device("cuda"), batch_size, bfloat16=True), card
    return Predictor(network, card.output, torch.device("cpu"), batch_size, threads, cpu_bfloat16), card
