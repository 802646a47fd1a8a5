"""Stage `stitch`: one slide-level map from the tile predictions."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict

from karyon.cohort.shard import SlideTask, StageResult
from karyon.cohort.stages.tissue import TissueFiles
from karyon.tiles.assembly import assemble, block_side
from karyon.tiles.layout import mask_window
from karyon.tiles.store import create_array, create_store, join_parts, open_store


def stitch_slide(task: SlideTask) -> StageResult:
    """Join a slide's tiles, block by block, each map for itself; what lies outside tissue becomes 0.

    Tiles reach beyond the tissue by as much as their size; clearing that makes the map the same for
    every tile size.

    Settings: ``assembly`` of the configuration's ``stitch``.
    """
    tissue = TissueFiles.read(task.files)
    maximum = 0
    with ExitStack() as stack:
        sources = [stack.enter_context(open_store(task.files.tiles_of(part))) for part in task.parts]
        grid, layout, tiles, predictions = join_parts(sources)
        target = stack.enter_context(create_store(task.files.map, {"grid": asdict(grid)}))
        side, maps = block_side(layout), predictions.shape[1:-2]
        chunks = (*(1 for _ in maps), side, side)
        values = create_array(target, "map", (*maps, grid.height, grid.width), chunks)
        for rows, columns, block in assemble(predictions, tiles, layout, grid, task.settings["assembly"]):
            block *= mask_window(tissue.mask, tissue.mask_grid, grid, columns, rows)
            values[..., rows, columns] = block
            maximum = max(maximum, int(block.max()))
        create_array(target, "maximum", (1,), (1,))[:] = maximum
    return StageResult(
        facts={"map_width": grid.width, "map_height": grid.height, "map_maximum": maximum},
        outputs=(task.files.map,),
    )
