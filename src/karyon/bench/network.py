"""The bare network on a slide's tiles: what a pipeline can reach at best."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from karyon.cohort.shard import SlideTask
from karyon.cohort.stages.stain import read_fit
from karyon.cohort.stages.tissue import TissueFiles, open_planned
from karyon.inference.predict import input_layer
from karyon.inference.reader import read_tiles
from karyon.models.folding import fold_batch_norm
from karyon.models.memory import use_huge_pages
from karyon.models.registry import channels_last
from karyon.models.weights import load_model
from karyon.tiles.grid import Grid
from karyon.tiles.layout import TileLayout, tissue_tiles

# Tiles held prepared, so that only the network is timed.
AT_ONCE = 16


def bare_network(task: SlideTask) -> tuple[float, int]:
    """Time the network alone on the tiles that stage `infer` would give it on CPUs, in as many threads.

    Reading and preparing tiles is not timed, and nothing runs beside the network.

    Args:
        task: Of stage `infer`; the stages before it are done.

    Returns:
        Seconds, and pixels that went through the network (halos included).
    """
    use_huge_pages()
    network, card = load_model(Path(task.settings["model"]))
    network = channels_last(fold_batch_norm(network))
    tissue = TissueFiles.read(task.files)
    grid = Grid.of_slide(tissue.facts, card.mpp)
    layout = TileLayout.of_grid(grid, task.settings["tile_px"], card.halo_px, card.stride)
    tiles = tissue_tiles(tissue.mask, tissue.mask_grid, grid, layout)
    inputs = input_layer(card, read_fit(task.files), task.settings["channel"])
    images = read_tiles(partial(open_planned, task.row), grid, layout, tiles, threads=1, ahead=0)
    seconds, run = 0.0, partial(_run, network)
    with ThreadPoolExecutor(task.threads, initializer=partial(torch.set_num_threads, 1)) as pool:
        while batch := list(islice(images, AT_ONCE)):
            prepared = [inputs(torch.from_numpy(image)[None]) for image, _ in batch]
            if not seconds:  # the first run takes its memory from the system
                list(pool.map(run, prepared[: task.threads]))
            start = time.perf_counter()
            list(pool.map(run, prepared))
            seconds += time.perf_counter() - start
    return seconds, len(tiles) * layout.window**2


@torch.inference_mode()
def _run(network: nn.Module, prepared: torch.Tensor) -> None:
    network(prepared.contiguous(memory_format=torch.channels_last))
