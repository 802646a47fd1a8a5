"""All that training remembers from step to step, and the file that keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from karyon.errors import KaryonError
from karyon.io.atomic import atomic_path, remove_leftovers
from karyon.models.registry import channels_last
from karyon.training.experiment import Experiment
from karyon.training.logs import LOG
from karyon.training.moving_average import moving_average
from karyon.training.optimisers import make_optimiser, make_schedule
from karyon.training.start import StartingPoint
from karyon.training.stopping import EarlyStopping

CHECKPOINT = "checkpoint.ckpt"


def fresh_state(start: StartingPoint, experiment: Experiment, fabric: Fabric) -> dict[str, Any]:
    """All that a checkpoint holds, before the first step."""
    channels_last(start.network)
    optimiser = make_optimiser(start.network, experiment.optimiser)
    schedule = make_schedule(optimiser, experiment.schedule, experiment.steps)
    average = moving_average(start.network, experiment.ema).to(fabric.device)
    network, prepared = fabric.setup(start.network, optimiser)
    return {
        "experiment": repr(experiment),
        "step": 0,
        "network": network,
        "average": average,
        "optimiser": prepared,
        "schedule": schedule,
        "stopping": EarlyStopping(experiment.patience),
        "best": {},  # the average at the best validation, if there is patience
        "log": [],
    }


def resume(state: dict[str, Any], fabric: Fabric, folder: Path) -> dict[str, Any]:
    """The state as the folder's checkpoint left it, if there is one.

    Raises:
        KaryonError: The checkpoint is of another experiment.
    """
    checkpoint = folder / CHECKPOINT
    remove_leftovers([checkpoint, folder / LOG])
    if checkpoint.exists():
        if fabric.load(checkpoint, weights_only=True)["experiment"] != state["experiment"]:
            raise KaryonError(
                f"{checkpoint} is of another experiment; give another --run folder, or remove it"
            )
        fabric.load(checkpoint, state, weights_only=True)
    return state


def save(state: dict[str, Any], fabric: Fabric, folder: Path) -> None:
    """Replace the checkpoint; the first process writes it, and the others wait."""
    if not fabric.is_global_zero:
        fabric.barrier()  # where the first one's `fabric.save` ends
        return
    with atomic_path(folder / CHECKPOINT) as temporary:
        fabric.save(temporary, state)
