"""Train a nucleus detector: reads top to bottom."""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import nn
from tqdm import tqdm

from karyon.errors import KaryonError
from karyon.io.atomic import atomic_path, remove_leftovers
from karyon.models.registry import channels_last
from karyon.training.batches import Batch, batches
from karyon.training.data import TrainingImage
from karyon.training.decoding_choice import choose_decoding
from karyon.training.experiment import Experiment
from karyon.training.logs import LOG, write_log
from karyon.training.losses import LOSSES
from karyon.training.moving_average import moving_average
from karyon.training.optimisers import after_step, after_validation, is_spent, make_optimiser, make_schedule
from karyon.training.start import StartingPoint, starting_point
from karyon.training.stopping import EarlyStopping

CHECKPOINT, BAD_BATCH = "checkpoint.ckpt", "bad_batch.json"
PRECISIONS: dict[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed"}


def train(
    experiment: Experiment,
    images: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    folder: Path,
    threads: int,
) -> nn.Module:
    """Train a network, resuming from ``folder`` if it holds a checkpoint.

    All that is random in a step follows from the seed and the step's number, and a checkpoint holds the rest.
    So on a CPU a run that was killed and started again ends with the weights of an undisturbed one, to the
    last bit.

    Args:
        experiment: What to train and how.
        images: Training images.
        validation: Images that choose the decoding, and whose F1 may lower the rate or end the training.
        folder: Where checkpoint and log go.
        threads: CPU threads.

    Returns:
        The moving average of the network, in evaluation mode: with ``patience`` that of the best validation,
        else that of the end.

    Raises:
        KaryonError: No nucleus is annotated in the validation images, the weights to start from do not fit,
            the checkpoint is of another experiment, or the loss or its gradient is no longer finite.
    """
    if not any(len(image.truth) for image in validation):
        raise KaryonError("the validation images have no annotated nucleus: there is no F1 to choose by")
    torch.set_num_threads(threads)
    fabric = Fabric(accelerator="auto", devices=1, precision=PRECISIONS[experiment.precision])
    images = [_on_device(image, fabric.device) for image in images]
    fabric.seed_everything(experiment.seed, verbose=False)
    start = starting_point(experiment)
    state = _resume(_fresh(start, experiment, fabric), fabric, folder)

    drawn = batches(images, experiment, first=state["step"])
    losses: list[float] = []
    since, waited, stepping = time.perf_counter(), 0.0, 0.0
    bar = tqdm(total=experiment.steps, initial=state["step"], mininterval=5)
    bar.write(f"{experiment.name}, step {state['step']}: {start.words}", file=sys.stderr)
    while not _is_over(state, experiment):
        begun = time.perf_counter()
        batch = next(drawn)
        waited += time.perf_counter() - begun
        rate = state["optimiser"].param_groups[0]["lr"]
        losses.append(_learn(batch, experiment, fabric, start, state, folder))
        stepping += time.perf_counter() - begun
        state["step"] += 1
        bar.update()
        if state["step"] % experiment.validate_every and state["step"] < experiment.steps:
            continue
        row = {"step": state["step"], "loss": float(np.mean(losses)), "lr": rate}
        row |= _validate(state, validation, experiment)
        row |= {"seconds": time.perf_counter() - since, "loader_share": waited / stepping}
        state["log"].append(row)
        bar.set_postfix(loss=row["loss"], f1=row["f1"])
        write_log(folder, state["log"])
        with atomic_path(folder / CHECKPOINT) as temporary:
            fabric.save(temporary, state)
        losses.clear()
        since, waited, stepping = time.perf_counter(), 0.0, 0.0
    bar.close()
    average: nn.Module = state["average"].module
    if state["best"]:
        average.load_state_dict(state["best"])
    return average.eval()


def _on_device(image: TrainingImage, device: torch.device) -> TrainingImage:
    """The image where crops are cut from it."""
    return replace(image, inputs=image.inputs.to(device), target=image.target.to(device))


def _fresh(start: StartingPoint, experiment: Experiment, fabric: Fabric) -> dict[str, Any]:
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


def _resume(state: dict[str, Any], fabric: Fabric, folder: Path) -> dict[str, Any]:
    """The state as the folder's checkpoint left it, if there is one."""
    checkpoint = folder / CHECKPOINT
    remove_leftovers([checkpoint, folder / LOG])
    if checkpoint.exists():
        if fabric.load(checkpoint, weights_only=True)["experiment"] != state["experiment"]:
            raise KaryonError(
                f"{checkpoint} is of another experiment; give another --run folder, or remove it"
            )
        fabric.load(checkpoint, state, weights_only=True)
    return state


def _is_over(state: dict[str, Any], experiment: Experiment) -> bool:
    """Whether all steps are done, F1 stands still, or the schedule has ended."""
    done = state["step"] >= experiment.steps
    return done or state["stopping"].is_over or is_spent(state["optimiser"], experiment.schedule)


def _learn(
    batch: Batch,
    experiment: Experiment,
    fabric: Fabric,
    start: StartingPoint,
    state: dict[str, Any],
    folder: Path,
) -> float:
    """One step of network, optimiser, schedule and moving average; returns the loss."""
    network, optimiser = state["network"], state["optimiser"]
    torch.manual_seed(experiment.seed * 1_000_003 + state["step"])  # what drops out
    start.train()
    inputs = fabric.to_device(batch.inputs.contiguous(memory_format=torch.channels_last))
    target = fabric.to_device(batch.target)
    loss = LOSSES[experiment.loss](network(inputs), target, **experiment.loss_arguments)
    fabric.backward(loss)
    largest = experiment.clip
    norm = fabric.clip_gradients(network, optimiser, max_norm=largest, error_if_nonfinite=False)
    assert norm is not None  # with max_norm it never is
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        _stop_at_nonsense(state["step"], loss.item(), norm.item(), batch.image_ids, folder)
    optimiser.step()
    optimiser.zero_grad()
    after_step(state["schedule"])
    state["average"].update_parameters(start.network)
    return loss.item()


def _validate(
    state: dict[str, Any], validation: Sequence[TrainingImage], experiment: Experiment
) -> dict[str, float]:
    """F1 of the moving average, which schedule and early stopping hear of; returns columns of the log."""
    average = state["average"].module
    decoding, score = choose_decoding(average, validation, experiment)
    after_validation(state["schedule"], score.f1)
    if state["stopping"].update(score.f1) and experiment.patience:
        state["best"] = copy.deepcopy(average.state_dict())
    return {"f1": score.f1, "threshold": decoding.threshold}


def _stop_at_nonsense(step: int, loss: float, norm: float, image_ids: Sequence[str], folder: Path) -> None:
    """Save which images the batch was of, and end the training."""
    with atomic_path(folder / BAD_BATCH) as temporary:
        batch = {"step": step, "loss": str(loss), "gradient_norm": str(norm), "image_ids": list(image_ids)}
        temporary.write_text(json.dumps(batch, indent=1), encoding="utf-8")
    raise KaryonError(
        f"step {step}: the loss is {loss} and its gradient's norm {norm}, on crops of "
        f"{', '.join(sorted(set(image_ids)))} (saved as {folder / BAD_BATCH}); look at these images, or "
        "lower learning_rate"
    )
