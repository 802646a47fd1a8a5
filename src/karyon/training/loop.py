"""Train a network that finds nuclei: reads top to bottom."""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import nn
from tqdm import tqdm

from karyon.errors import KaryonError
from karyon.io.atomic import atomic_path
from karyon.models.card import Decoding
from karyon.training.batches import Batch, batches
from karyon.training.checkpoint import fresh_state, resume, save
from karyon.training.data import TrainingImage
from karyon.training.decoding_choice import Score, choose_decoding, decoding_of
from karyon.training.experiment import Experiment
from karyon.training.logs import open_curves, write_log
from karyon.training.losses import LOSSES
from karyon.training.optimisers import after_step, after_validation, is_spent
from karyon.training.processes import launch
from karyon.training.start import StartingPoint, starting_point

BAD_BATCH = "bad_batch.json"

# Keeps what a validation saw: the step, the network, and its decoding with the score.
Snapshot = Callable[[int, nn.Module, Decoding, Score], object]


def train(
    experiment: Experiment,
    images: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    folder: Path,
    threads: int,
    fabric: Fabric | None = None,
    snapshot: Snapshot | None = None,
) -> nn.Module:
    """Train a network, resuming from ``folder`` if it holds a checkpoint.

    All that is random in a step follows from the seed and the step's number, and a checkpoint holds the rest.
    So on a CPU a run that was killed and started again ends with the weights of an undisturbed one, to the
    last bit.

    Several processes draw the same batch and learn from a part of it each, and the gradient is the mean of
    theirs. The first of them validates, for all, and writes.

    Args:
        experiment: What to train and how.
        images: Training images.
        validation: Images that choose the decoding, and whose F1 may lower the rate or end the training.
        folder: Where checkpoint and log go.
        threads: CPU threads of each process.
        fabric: The processes, from :func:`launch`; without it this one is the only one.
        snapshot: Called in the first process at every ``snapshot_every`` steps.

    Returns:
        The moving average of the network, in evaluation mode: with ``patience`` that of the best validation,
        else that of the end. Only the first process' is of use.

    Raises:
        KaryonError: No nucleus is annotated in the validation images, or the model of ``decoding_of`` is
            of no use; the weights to start from do not fit, the checkpoint is of another experiment, or the
            loss or its gradient is no longer finite.
    """
    if experiment.decoding_of is not None:
        decoding_of(experiment.decoding_of, experiment)  # to tell what is wrong with it before training
    elif not any(len(image.truth) for image in validation):
        raise KaryonError("the validation images have no annotated nucleus: there is no F1 to choose by")
    fabric = fabric or launch(experiment, devices=1)
    torch.set_num_threads(threads)
    images = [_on_device(image, fabric.device) for image in images]
    fabric.seed_everything(experiment.seed, verbose=False)
    start = starting_point(experiment)
    state = resume(fresh_state(start, experiment, fabric), fabric, folder)

    drawn = batches(images, experiment, first=state["step"])
    curves = open_curves(folder, state["step"])
    losses: list[float] = []
    since, waited, stepping = time.perf_counter(), 0.0, 0.0
    fabric.print(f"{experiment.name}, step {state['step']}: {start.words}", file=sys.stderr)
    first = fabric.is_global_zero
    bar = tqdm(total=experiment.steps, initial=state["step"], mininterval=5, disable=not first)
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
        decoding, score = _validate(state, validation, experiment, fabric)
        row = {"step": state["step"], "loss": float(np.mean(losses)), "lr": rate}
        row |= {"f1": score.f1, "threshold": decoding.threshold}
        row |= {"seconds": time.perf_counter() - since, "loader_share": waited / stepping}
        state["log"].append(row)
        bar.set_postfix(loss=row["loss"], f1=row["f1"])
        if first:
            write_log(folder, state["log"], curves)
            if snapshot and experiment.snapshot_every and state["step"] % experiment.snapshot_every == 0:
                snapshot(state["step"], state["average"].module, decoding, score)
        save(state, fabric, folder)
        losses.clear()
        since, waited, stepping = time.perf_counter(), 0.0, 0.0
    bar.close()
    curves.finalize("success")
    average: nn.Module = state["average"].module
    if state["best"]:
        average.load_state_dict(state["best"])
    return average.eval()


def _on_device(image: TrainingImage, device: torch.device) -> TrainingImage:
    """The image where crops are cut from it."""
    return replace(image, inputs=image.inputs.to(device), target=image.target.to(device))


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
    """One step of network, optimiser, schedule and moving average; returns the loss of the whole batch."""
    network, optimiser = state["network"], state["optimiser"]
    process, processes = fabric.global_rank, fabric.world_size
    # What drops out; in each process other things.
    torch.manual_seed(experiment.seed * 1_000_003 + state["step"] + 10**12 * process)
    start.train()
    inputs = fabric.to_device(batch.inputs.chunk(processes)[process])
    target = fabric.to_device(batch.target.chunk(processes)[process])
    outputs = network(inputs.contiguous(memory_format=torch.channels_last))
    part = LOSSES[experiment.loss](outputs, target, **experiment.loss_arguments)
    fabric.backward(part)
    norm = fabric.clip_gradients(network, optimiser, max_norm=experiment.clip, error_if_nonfinite=False)
    assert norm is not None  # with max_norm it never is
    # The mean over the processes, as the gradient is: so all of them go on, or none.
    loss = cast(torch.Tensor, fabric.all_reduce(part.detach())).item()
    if not (math.isfinite(loss) and math.isfinite(norm.item())):
        _stop_at_nonsense(state["step"], loss, norm.item(), batch.image_ids, folder)
    optimiser.step()
    optimiser.zero_grad()
    after_step(state["schedule"])
    state["average"].update_parameters(start.network)
    return loss


def _validate(
    state: dict[str, Any], validation: Sequence[TrainingImage], experiment: Experiment, fabric: Fabric
) -> tuple[Decoding, Score]:
    """Decoding and score of the moving average, which schedule and early stopping hear of.

    Those of the first process for all: statistics of batch norm, and so its average, are its own.
    """
    average = state["average"].module
    found = choose_decoding(average, validation, experiment) if fabric.is_global_zero else None
    decoding, score = cast(tuple[Decoding, Score], fabric.broadcast(found))
    after_validation(state["schedule"], score.f1)
    if state["stopping"].update(score.f1) and experiment.patience:
        state["best"] = copy.deepcopy(average.state_dict())
    return decoding, score


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
