"""Losses of the SWITCH paper (section 2.3 and 3.2), on logits, averaged over the mini-batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

# Keeps Dice defined on a mini-batch without foreground (the paper's epsilon).
EPSILON = 1.0


def dice_loss(p: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Soft Dice over all pixels of the mini-batch, ``1 - (2 sum pg + e) / (sum p + sum g + e)`` (eq. 2).

    Args:
        p: Probabilities.
        g: Truth in [0, 1], of the same shape.
    """
    return 1 - (2 * (p * g).sum() + EPSILON) / (p.sum() + g.sum() + EPSILON)


def inverted_dice_loss(p: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Dice of the background, ``dice_loss(1 - p, 1 - g)`` (eq. 3)."""
    return dice_loss(1 - p, 1 - g)


def switching_loss(
    logits: torch.Tensor, g: torch.Tensor, weight: float = 0.8, tau: float = 0.2, form: str = "rare_class"
) -> torch.Tensor:
    """Cross-entropy plus Dice and inverted Dice, the emphasis switched by each mini-batch (eq. 5).

    ``r`` is the foreground share of the mini-batch and ``L = L_C + a L_D + b L_I``. As printed,
    ``(a, b) = (w, 1 - w)`` if ``r > tau``, else ``(1 - w, w)``; the prose emphasises the rare class,
    which is the other way round (METHODS, "contradiction").

    Args:
        logits: Any shape.
        g: Truth in [0, 1], of the same shape.
        weight: The paper's lambda.
        tau: Foreground share at which the emphasis switches.
        form: ``printed`` or ``rare_class``.
    """
    p = torch.sigmoid(logits)
    frequent = g.mean() > tau
    on_dice = weight if bool(frequent) == (form == "printed") else 1 - weight
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, g)
    return cross_entropy + on_dice * dice_loss(p, g) + (1 - on_dice) * inverted_dice_loss(p, g)


LOSSES: dict[str, Callable[..., torch.Tensor]] = {"switching": switching_loss}
