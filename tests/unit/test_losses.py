"""Losses against values worked by hand, and their gradients against finite differences."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from karyon.training.losses import dice_loss, inverted_dice_loss, switching_loss

# Two pixels: one of the foreground found with 0.8, one of the background with 0.4.
P = torch.tensor([[0.8, 0.4]], dtype=torch.float64)
G = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
DICE = 1 - (2 * 0.8 + 1) / (0.8 + 0.4 + 1 + 1)
INVERTED = 1 - (2 * 0.6 + 1) / (0.2 + 0.6 + 1 + 1)
CROSS_ENTROPY = -(math.log(0.8) + math.log(1 - 0.4)) / 2


def test_dice_of_two_pixels() -> None:
    assert float(dice_loss(P, G)) == pytest.approx(DICE) == pytest.approx(0.1875)


def test_inverted_dice_of_two_pixels() -> None:
    assert float(inverted_dice_loss(P, G)) == pytest.approx(INVERTED) == pytest.approx(3 / 14)


def test_perfect_prediction_costs_nothing() -> None:
    assert float(dice_loss(G, G)) == float(inverted_dice_loss(G, G)) == 0.0


def test_batch_without_foreground_is_defined() -> None:
    # (0 + 1) / (0.8 + 0.4 + 0 + 1)
    assert float(dice_loss(P, torch.zeros_like(G))) == pytest.approx(1 - 1 / 2.2)


def test_dice_pools_the_mini_batch() -> None:
    # Image by image and then averaged it would be (1 - 1 / 1.4 + 1 - 2.6 / 2.8) / 2.
    p, g = torch.tensor([[0.4], [0.8]]), torch.tensor([[0.0], [1.0]])
    assert float(dice_loss(p, g)) == pytest.approx(DICE)


@pytest.mark.parametrize(
    ("form", "tau", "on_dice"),
    [
        # Half of the pixels are foreground: more than a tau of 0.2, not more than one of 0.5.
        ("printed", 0.2, 0.8),
        ("printed", 0.5, 0.2),
        ("rare_class", 0.2, 0.2),
        ("rare_class", 0.5, 0.8),
    ],
)
def test_emphasis_switches_with_the_foreground_share(form: str, tau: float, on_dice: float) -> None:
    loss = switching_loss(torch.logit(P), G, weight=0.8, tau=tau, form=form)
    assert float(loss) == pytest.approx(CROSS_ENTROPY + on_dice * DICE + (1 - on_dice) * INVERTED)


def test_default_emphasises_dice_where_nuclei_are_rare() -> None:
    p = torch.tensor([0.8, 0.4, 0.4, 0.4, 0.4, 0.4], dtype=torch.float64)
    g = torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    dice, inverted = 1 - 2.6 / (2.8 + 2), 1 - 7 / (3.2 + 5 + 1)
    cross_entropy = -(math.log(0.8) + 5 * math.log(0.6)) / 6
    expected = cross_entropy + 0.8 * dice + 0.2 * inverted
    assert float(switching_loss(torch.logit(p), g)) == pytest.approx(expected)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([-200.0, 200.0])
    assert float(switching_loss(logits, torch.tensor([1.0, 0.0]))) == pytest.approx(200 + 1 - 1 / 3, rel=1e-6)


@pytest.mark.parametrize("form", ["printed", "rare_class"])
@pytest.mark.parametrize("tau", [0.05, 0.95])
def test_gradients_equal_finite_differences(form: str, tau: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    g = (torch.rand(2, 1, 4, 4, dtype=torch.float64, generator=generator) > 0.6).double()
    assert torch.autograd.gradcheck(partial(switching_loss, g=g, tau=tau, form=form), (logits,))
    p = torch.sigmoid(logits.detach()).requires_grad_()
    assert torch.autograd.gradcheck(partial(dice_loss, g=g), (p,))
    assert torch.autograd.gradcheck(partial(inverted_dice_loss, g=g), (p,))
