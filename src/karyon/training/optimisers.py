"""Optimisers and schedules of the learning rate by name."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

from karyon.training.experiment import Optimiser, Schedule

# Share of a one-cycle schedule in which the rate rises.
RISE = 0.05


def make_optimiser(network: nn.Module, settings: Optimiser) -> Optimizer:
    """The optimiser of a network's weights, but for those that are frozen."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.name == "adamw":
        return AdamW(weights, lr=rate, weight_decay=decay)
    if settings.name == "adam":
        return Adam(weights, lr=rate, weight_decay=decay)
    return SGD(weights, lr=rate, weight_decay=decay, momentum=settings.momentum, nesterov=True)


def make_schedule(optimiser: Optimizer, settings: Schedule, steps: int) -> LRScheduler:
    """How the learning rate goes from the optimiser's own to the end of training.

    With ``L`` the optimiser's rate and ``t`` of ``T`` steps done: ``onecycle`` rises from ``L / 25`` to ``L``
    and falls to nearly 0 by half cosines (Smith and Topin 2019); ``cosine`` is ``L (1 + cos(pi t / T)) / 2``;
    ``step`` is ``L factor^floor(t / every)``; ``constant`` is ``L``. ``plateau`` multiplies by ``factor``
    after ``patience`` validations in a row without a better F1 (MICRONET's, with 0.1, 10,000 steps and
    ``until`` 1e-4).

    Args:
        optimiser: Whose rate it is.
        settings: The schedule.
        steps: Of the whole training.
    """
    if settings.name == "onecycle":
        peak = optimiser.param_groups[0]["lr"]
        # Torch divides by zero where the peak is the first step or the last.
        rise = min(max(RISE, 1.5 / steps), 0.9)
        return OneCycleLR(optimiser, max_lr=peak, total_steps=steps, pct_start=rise)
    if settings.name == "cosine":
        return CosineAnnealingLR(optimiser, T_max=steps)
    if settings.name == "step":
        return StepLR(optimiser, settings.every, settings.factor)
    if settings.name == "plateau":
        # Torch waits for one validation more than its patience.
        waits = settings.patience - 1
        return ReduceLROnPlateau(
            optimiser, "max", settings.factor, waits, threshold=0, threshold_mode="abs", eps=0
        )
    return ConstantLR(optimiser, factor=1.0)


def after_step(schedule: LRScheduler) -> None:
    """Tell the schedule that the optimiser has made a step."""
    if not isinstance(schedule, ReduceLROnPlateau):
        schedule.step()


def after_validation(schedule: LRScheduler, f1: float) -> None:
    """Tell the schedule the F1 of a validation; NaN counts as no better."""
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.step(f1)


def is_spent(optimiser: Optimizer, settings: Schedule) -> bool:
    """Whether ``plateau`` has lowered the rate below its limit, which ends the training."""
    return settings.name == "plateau" and optimiser.param_groups[0]["lr"] < settings.until
