"""The bare network on a slide's tiles: what a pipeline can reach at best."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import torch

from karyon.cohort.shard import SlideTask
from karyon.cohort.stages.stain import read_fit
from karyon.cohort.stages.tissue import TissueFiles, open_planned
from karyon.inference.predict import input_layer
from karyon.inference.reader import read_tiles
from karyon.models.card import load_model
from karyon.models.folding import fold_batch_norm
from karyon.models.registry import channels_last
from karyon.tiles.grid import Grid
from karyon.tiles.layout import TileLayout, tissue_tiles


@torch.inference_mode()
def bare_network(task: SlideTask) -> tuple[float, int]:
    """Time the network alone on the tiles that stage `infer` would give it on a CPU, one at a time.

    Reading and preparing a tile is not timed, and nothing runs beside the network.

    Args:
        task: Of stage `infer`; the stages before it are done.

    Returns:
        Seconds, and pixels that went through the network (halos included).
    """
    torch.set_num_threads(task.threads)
    network, card = load_model(Path(task.settings["model"]))
    network = channels_last(fold_batch_norm(network))
    tissue = TissueFiles.read(task.files)
    grid = Grid.of_slide(tissue.facts, card.mpp)
    layout = TileLayout.of_grid(grid, task.settings["tile_px"], card.halo_px, card.stride)
    tiles = tissue_tiles(tissue.mask, tissue.mask_grid, grid, layout)
    inputs = input_layer(card, read_fit(task.files), task.settings["channel"])
    seconds = 0.0
    for image in read_tiles(partial(open_planned, task.row), grid, layout, tiles, threads=1, ahead=0):
        if image is None:
            continue
        prepared = inputs(torch.from_numpy(image)[None]).contiguous(memory_format=torch.channels_last)
        start = time.perf_counter()
        network(prepared)
        seconds += time.perf_counter() - start
    return seconds, len(tiles) * layout.window**2
