"""The processes that train one network together, one on each device."""

from __future__ import annotations

from typing import Any

from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException

from karyon.errors import KaryonError
from karyon.training.experiment import Experiment

PRECISIONS: dict[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed"}


def launch(experiment: Experiment, devices: int) -> Fabric:
    """Start a process for each device but the first, and connect them.

    The others run the command line of this one once more, and come here as well: what follows happens in all.
    On a machine without a GPU a device is a process on its CPU.

    Args:
        experiment: Its batch is shared by the devices, and its precision is theirs.
        devices: How many, all of one machine.

    Raises:
        KaryonError: The batch cannot be shared evenly, or there are not so many devices.
    """
    if devices < 1 or experiment.batch % devices:
        raise KaryonError(
            f"--devices is {devices} and the experiment's batch {experiment.batch}; expected a batch that "
            "gives each device the same number of crops"
        )
    try:
        fabric = Fabric(
            accelerator="auto",
            devices=devices,
            precision=PRECISIONS[experiment.precision],
            # Else Lightning expects the processes to come from Slurm, wherever it sees a Slurm job.
            plugins=LightningEnvironment(),
        )
    except MisconfigurationException as error:
        raise KaryonError(f"--devices is {devices}: {error}") from error
    fabric.launch()
    return fabric
