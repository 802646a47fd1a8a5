"""Train a nucleus detector: reads top to bottom."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from karyon.errors import KaryonError
from karyon.evaluation.detection import DetectionScore, score_detection
from karyon.evaluation.matching import match_points
from karyon.io.atomic import atomic_path
from karyon.models.card import Decoding
from karyon.models.registry import build, channels_last, halo_and_stride
from karyon.nuclei.components import find_components
from karyon.nuclei.decode import map_threshold
from karyon.training.augmentation import Augmentation, draw_crop, vary_stain
from karyon.training.data import TrainingImage
from karyon.training.experiment import Experiment
from karyon.training.losses import LOSSES

CHECKPOINT, LOG = "checkpoint.ckpt", "log.jsonl"
THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(4, 18))
PAPER_THRESHOLD, TOLERANCE = 0.35, 0.005
MIN_AREAS_UM2 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
RADIUS_UM = 4.0


def train(
    experiment: Experiment,
    images: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    folder: Path,
    threads: int,
) -> nn.Module:
    """Train a network, resuming from ``folder`` if it holds a checkpoint.

    Every step draws its batch from a generator seeded with the step, so a resumed run sees the
    batches of an undisturbed one.

    Args:
        experiment: What to train and how.
        images: Training images.
        validation: Images that choose nothing but the decoding, and are watched on the way.
        folder: Where checkpoint and log go.
        threads: CPU threads.

    Returns:
        The exponential moving average of the network, in evaluation mode.

    Raises:
        KaryonError: The checkpoint is of another experiment.
        FloatingPointError: The loss is no longer finite.
    """
    torch.set_num_threads(threads)
    fabric = Fabric(
        accelerator="auto", devices=1, precision="bf16-mixed" if torch.cuda.is_available() else "32-true"
    )
    state = _start(experiment, fabric, folder / CHECKPOINT)
    network = state["network"]
    loss_function = LOSSES[experiment.loss]
    bar = tqdm(
        range(state["step"], experiment.steps), initial=state["step"], total=experiment.steps, mininterval=5
    )
    recent: list[float] = []
    since = time.perf_counter()
    for step in bar:
        inputs, target = draw_batch(images, experiment, step)
        network.train()
        logits = network(fabric.to_device(inputs.contiguous(memory_format=torch.channels_last)))
        loss = loss_function(logits, fabric.to_device(target), **experiment.loss_arguments)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"step {step}: the loss is {loss.item()}; lower learning_rate")
        _optimise(fabric, state, loss, experiment.clip)
        recent.append(loss.item())
        if (step + 1) % experiment.validate_every == 0 or step + 1 == experiment.steps:
            decoding, score = choose_decoding(state["average"].module, validation, experiment.mpp)
            row = {"step": step + 1, "loss": float(np.mean(recent)), "f1": score.f1}
            row |= {"threshold": decoding.threshold, "seconds": round(time.perf_counter() - since)}
            log_row(folder, row)
            bar.set_postfix(loss=row["loss"], f1=score.f1)
            recent.clear()
            since = time.perf_counter()
            state["step"] = step + 1
            with atomic_path(folder / CHECKPOINT) as temporary:
                fabric.save(temporary, state)
    return state["average"].module.eval()


def _start(experiment: Experiment, fabric: Fabric, checkpoint: Path) -> dict[str, Any]:
    """Network, its moving average, optimiser and schedule: fresh, or as the checkpoint left them."""
    fabric.seed_everything(experiment.seed, verbose=False)
    network = channels_last(build(experiment.architecture, **experiment.arguments))
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(experiment.ema), use_buffers=True)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=experiment.learning_rate, weight_decay=experiment.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=experiment.learning_rate, total_steps=experiment.steps, pct_start=0.05
    )
    network, optimizer = fabric.setup(network, optimizer)
    state = {
        "network": network,
        "average": average.to(fabric.device),
        "optimizer": optimizer,
        "schedule": schedule,
        "step": 0,
        "experiment": repr(experiment),
    }
    if checkpoint.exists():
        fabric.load(checkpoint, state)
        if state["experiment"] != repr(experiment):
            raise KaryonError(
                f"{checkpoint} is of another experiment; give another --run folder, or remove it"
            )
    return state


def _optimise(fabric: Fabric, state: dict[str, Any], loss: torch.Tensor, clip: float) -> None:
    """One step of the optimiser, the schedule and the moving average."""
    fabric.backward(loss)
    fabric.clip_gradients(state["network"], state["optimizer"], max_norm=clip)
    state["optimizer"].step()
    state["optimizer"].zero_grad()
    state["schedule"].step()
    state["average"].update_parameters(state["network"])


def draw_batch(
    images: Sequence[TrainingImage], experiment: Experiment, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of a step, the same in every run.

    Returns:
        Inputs ``(n, 1, side, side)`` and masks of the same shape.
    """
    generator = torch.Generator().manual_seed(experiment.seed * 1_000_003 + step)
    settings: Augmentation = experiment.augmentation
    chosen = torch.randint(len(images), (experiment.batch,), generator=generator)
    crops = [
        draw_crop(images[k].stains, images[k].target, experiment.crop_px, settings, generator) for k in chosen
    ]
    stains, target = (torch.stack(part) for part in zip(*crops, strict=True))
    return vary_stain(stains, 0, settings, generator), target


@torch.inference_mode()
def predict_map(network: nn.Module, image: TrainingImage) -> np.ndarray:
    """The probability map of a whole image as the slide workflow stores it, uint8, ``(h, w)``.

    Round the image lies glass, as wide as the network's reach.
    """
    device = next(network.parameters()).device
    network.eval()
    halo, stride = halo_and_stride(network)
    height, width = image.grid.height, image.grid.width
    right, bottom = halo + -width % stride, halo + -height % stride
    inputs = functional.pad(image.stains[None, :1].to(device), (halo, right, halo, bottom))
    probability = torch.sigmoid(network(inputs.contiguous(memory_format=torch.channels_last)))[0, 0]
    inside = probability[halo : halo + height, halo : halo + width]
    return (inside * 255).round().to(torch.uint8).cpu().numpy()


def choose_decoding(
    network: nn.Module, images: Sequence[TrainingImage], mpp: float
) -> tuple[Decoding, DetectionScore]:
    """Threshold and smallest area by pooled F1, decoded and matched as in the slide workflow.

    On a few validation images F1 is flat over most thresholds, and its maximum is chance. So of all
    choices within ``TOLERANCE`` of the best, the threshold nearest to the SWITCH paper's 0.35 is taken,
    with the area that suits it best.

    Args:
        network: Gives logits ``(n, 1, h, w)``.
        images: Validation images.
        mpp: Microns per model pixel.
    """
    totals = {
        (threshold, area): DetectionScore(0, 0, 0) for threshold in THRESHOLDS for area in MIN_AREAS_UM2
    }
    for image in images:
        values = predict_map(network, image)
        for threshold in THRESHOLDS:
            found = find_components(values, map_threshold(Decoding("components", threshold), 255))
            for area in MIN_AREAS_UM2:
                kept = found.select(found.area * mpp**2 >= area)
                points = image.grid.to_level0(np.stack([kept.x, kept.y], axis=1))
                matches = match_points(points, image.truth, RADIUS_UM / image.mpp)
                totals[threshold, area] += score_detection(matches, len(points), len(image.truth), image.mpp)
    enough = max(score.f1 for score in totals.values()) - TOLERANCE
    close = [choice for choice, score in totals.items() if score.f1 >= enough]
    chosen = min(close, key=lambda choice: (abs(choice[0] - PAPER_THRESHOLD), -totals[choice].f1))
    return Decoding("components", chosen[0], min_area_um2=chosen[1]), totals[chosen]


def log_row(folder: Path, row: dict[str, float]) -> None:
    """Append a line to the run's log, JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def logged_seconds(folder: Path) -> int:
    """Seconds that all parts of a run took together."""
    return sum(
        json.loads(line)["seconds"] for line in (folder / LOG).read_text(encoding="utf-8").splitlines()
    )
