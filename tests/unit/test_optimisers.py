"""Learning rates step by step, worked out by hand from their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from karyon.training.experiment import Optimiser, Schedule
from karyon.training.optimisers import (
    after_step,
    after_validation,
    is_spent,
    make_optimiser,
    make_schedule,
)


def optimiser_and_schedule(settings: Schedule, rate: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    optimiser = make_optimiser(nn.Linear(2, 1), Optimiser("sgd", rate))
    return optimiser, make_schedule(optimiser, settings, steps)


def rates(settings: Schedule, rate: float, steps: int) -> list[float]:
    """The learning rate of every step of a training."""
    optimiser, schedule = optimiser_and_schedule(settings, rate, steps)
    found = []
    for _ in range(steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        after_step(schedule)
    return found


def test_constant_rate_stays() -> None:
    assert rates(Schedule("constant"), 0.02, 5) == [0.02] * 5


def test_step_schedule_multiplies_after_every_so_many_steps() -> None:
    # SWITCH: times 0.3 every 25 of 100 epochs, here with 2 for 25.
    found = rates(Schedule("step", factor=0.3, every=2), 1e-4, 8)
    assert found == pytest.approx([1e-4, 1e-4, 3e-5, 3e-5, 9e-6, 9e-6, 2.7e-6, 2.7e-6])


def test_cosine_falls_to_nothing_by_half_a_wave() -> None:
    # cos(0), cos(45 degrees), cos(90), cos(135): at the fifth step it would be 0.
    half = math.sqrt(0.5)
    expected = [0.1, 0.05 * (1 + half), 0.05, 0.05 * (1 - half)]
    assert rates(Schedule("cosine"), 0.1, 4) == pytest.approx(expected)


def test_one_cycle_rises_for_a_twentieth_of_the_steps() -> None:
    found = rates(Schedule("onecycle"), 0.5, 100)
    assert found[0] == pytest.approx(0.5 / 25)
    assert found.index(max(found)) == 4
    assert max(found) == pytest.approx(0.5)
    # Half a cosine from step 4 to 99; its middle is between 51 and 52.
    assert (found[51] + found[52]) / 2 == pytest.approx(0.25, rel=1e-3)
    assert found[-1] < 1e-4


@pytest.mark.parametrize("steps", [1, 2, 3, 19, 20, 21, 40])
def test_one_cycle_serves_short_trainings(steps: int) -> None:
    found = rates(Schedule("onecycle"), 0.5, steps)
    assert all(0 < rate <= 0.5 for rate in found)
    assert found[-1] < 1e-4


def test_plateau_lowers_the_rate_when_f1_stands_still_and_ends_below_its_limit() -> None:
    # MICRONET: from 0.01 by 0.1 until it is below 1e-4; here after two validations that are no better.
    settings = Schedule("plateau", factor=0.1, patience=2, until=1e-4)
    optimiser, schedule = optimiser_and_schedule(settings, 0.01, 100)
    found = []
    # The fifth, the eighth and the tenth are each the second in a row that is no better.
    for f1 in (0.5, 0.5, 0.6, 0.6, 0.4, 0.7, math.nan, 0.7, 0.7, 0.7):
        after_step(schedule)
        after_validation(schedule, f1)
        found.append((optimiser.param_groups[0]["lr"], is_spent(optimiser, settings)))
    powers = [2, 2, 2, 2, 3, 3, 3, 4, 4, 5]
    assert [rate for rate, _ in found] == pytest.approx([10.0**-power for power in powers])
    assert [spent for _, spent in found] == [False] * 9 + [True]


def test_validation_moves_no_other_schedule() -> None:
    settings = Schedule("step", factor=0.5, every=1)
    optimiser, schedule = optimiser_and_schedule(settings, 1.0, 10)
    for _ in range(20):
        after_validation(schedule, 0.1)
    assert optimiser.param_groups[0]["lr"] == 1.0
    assert not is_spent(optimiser, settings)


@pytest.mark.parametrize(
    ("name", "expected"),
    # One step with gradient 2 from weight 1, at rate 0.1 and decay 0.5. Adam's first step is the rate itself
    # whatever the gradient; AdamW shrinks the weight by 0.1 * 0.5 before. Nesterov's step is
    # g + 0.9 g with g = 2 + 0.5 * 1.
    [("adam", 1 - 0.1), ("adamw", 0.95 - 0.1), ("sgd", 1 - 0.1 * 2.5 * 1.9)],
)
def test_first_step_is_as_worked_out_by_hand(name: str, expected: float) -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    optimiser = make_optimiser(network, Optimiser(name, 0.1, weight_decay=0.5, momentum=0.9))  # type: ignore[arg-type]
    network.weight.grad = torch.tensor([[2.0]])
    optimiser.step()
    assert network.weight.item() == pytest.approx(expected, rel=1e-6)


def test_frozen_weights_are_not_the_optimisers() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    network[0].requires_grad_(False)
    optimiser = make_optimiser(network, Optimiser("adamw", 0.1))
    assert [id(weight) for weight in optimiser.param_groups[0]["params"]] == [
        id(weight) for weight in network[1].parameters()
    ]
