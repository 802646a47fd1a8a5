"""Losses of the papers, and of Karyon's own outlines.

Those of SWITCH (sections 2.3, 3.2 and 4.2) are on logits, MICRONET's (eq. 2) is on raw outputs. Each takes
the network's output and a target of the same shape ``(n, ...)`` and returns a scalar. They compute in float32
at least, so that autocast in half precision changes the output and not the loss.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from karyon.tiles.assembly import border_weight
from karyon.training.joint_loss import joint_loss

# Keeps Dice defined on a mini-batch without foreground (SWITCH's epsilon).
EPSILON = 1.0
FORMS = ("printed", "rare_class")


def bce_loss(logits: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy, averaged over all pixels of the mini-batch.

    The full form, ``-(g log p + (1 - g) log(1 - p))``; SWITCH's eq. 1 prints its foreground term alone.

    Args:
        logits: Any shape; ``p = sigmoid(logits)``.
        g: Truth in [0, 1], of the same shape.

    Raises:
        ValueError: The shapes differ.
    """
    logits, g = _in_full_precision(logits, g)
    return functional.binary_cross_entropy_with_logits(logits, g)


def dice_loss(logits: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Soft Dice over the mini-batch, ``1 - (2 sum pg + e) / (sum p + sum g + e)`` (SWITCH, eq. 2).

    The sums run over all pixels of all images at once, so an image without nuclei does no harm.

    Args:
        logits: Any shape; ``p = sigmoid(logits)``.
        g: Truth in [0, 1], of the same shape.

    Raises:
        ValueError: The shapes differ.
    """
    logits, g = _in_full_precision(logits, g)
    p = torch.sigmoid(logits)
    return 1 - (2 * (p * g).sum() + EPSILON) / (p.sum() + g.sum() + EPSILON)


def inverted_dice_loss(logits: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Dice of the background: ``dice_loss`` of ``1 - p`` and ``1 - g`` (SWITCH, eq. 3).

    Args:
        logits: Any shape; ``p = sigmoid(logits)``.
        g: Truth in [0, 1], of the same shape.

    Raises:
        ValueError: The shapes differ.
    """
    logits, g = _in_full_precision(logits, g)
    return dice_loss(-logits, 1 - g)


def focal_loss(logits: torch.Tensor, g: torch.Tensor, gamma: float = 5.0) -> torch.Tensor:
    """Cross-entropy of which pixels count less that are well classified, averaged over the mini-batch.

    ``-(g (1 - p)^gamma log p + (1 - g) p^gamma log(1 - p))``: SWITCH's eq. 4 prints the foreground term, and
    the background needs its own for the same reason as in ``bce_loss``. With ``gamma`` 0 it is ``bce_loss``.

    Args:
        logits: Any shape; ``p = sigmoid(logits)``.
        g: Truth in [0, 1], of the same shape.
        gamma: At least 0; SWITCH takes 5 on nuclei and 1 on MRI.

    Raises:
        ValueError: The shapes differ, or ``gamma`` is negative.
    """
    if not gamma >= 0:
        raise ValueError(f"gamma is {gamma}; expected 0 or more.")
    logits, g = _in_full_precision(logits, g)
    log_p, log_q = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    # A power by its logarithm: where p is 0 its gradient is 0, and not infinite as for a gamma below 1.
    foreground, background = torch.exp(gamma * log_q) * log_p, torch.exp(gamma * log_p) * log_q
    return -(g * foreground + (1 - g) * background).mean()


def bce_dice_loss(logits: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """``L_C + L_D``: cross-entropy plus Dice (SWITCH, loss ablation c).

    Args:
        logits: Any shape; ``p = sigmoid(logits)``.
        g: Truth in [0, 1], of the same shape.

    Raises:
        ValueError: The shapes differ.
    """
    return bce_loss(logits, g) + dice_loss(logits, g)


def bce_dice_inverted_loss(logits: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """``L_C + (L_D + L_I) / 2``: the switching loss without the switch (SWITCH, loss ablation b).

    The paper says "equal weighing" and no more. A half each keeps their sum at 1 as in eq. 5, so that the
    ablation differs from the switching loss in nothing but the emphasis.

    Args:
        logits: Any shape; ``p = sigmoid(logits)``.
        g: Truth in [0, 1], of the same shape.

    Raises:
        ValueError: The shapes differ.
    """
    return bce_loss(logits, g) + (dice_loss(logits, g) + inverted_dice_loss(logits, g)) / 2


def switching_loss(
    logits: torch.Tensor, g: torch.Tensor, weight: float = 0.8, tau: float = 0.2, form: str = "rare_class"
) -> torch.Tensor:
    """Cross-entropy plus Dice and inverted Dice, the emphasis switched by each mini-batch (SWITCH, eq. 5).

    ``r`` is the foreground share of the mini-batch, the mean of ``g``, and ``L = L_C + a L_D + b L_I``. As
    printed, ``(a, b) = (w, 1 - w)`` if ``r > tau``, else ``(1 - w, w)``; the prose emphasises the rare class,
    which is the other way round. The paper leaves ``r = tau`` open; here it is not frequent.

    Args:
        logits: Any shape; ``p = sigmoid(logits)``.
        g: Truth in [0, 1], of the same shape.
        weight: The paper's lambda, 0 to 1.
        tau: Foreground share at which the emphasis switches, 0 to 1.
        form: ``printed`` or ``rare_class``.

    Raises:
        ValueError: The shapes differ, or an argument is none of these.
    """
    if form not in FORMS:
        raise ValueError(f"form is {form!r}; expected one of {', '.join(FORMS)}.")
    for name, share in (("weight", weight), ("tau", tau)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is {share}; expected 0 to 1.")
    logits, g = _in_full_precision(logits, g)
    frequent = bool(g.mean() > tau)
    on_dice = weight if frequent == (form == "printed") else 1 - weight
    return (
        bce_loss(logits, g) + on_dice * dice_loss(logits, g) + (1 - on_dice) * inverted_dice_loss(logits, g)
    )


def weighted_mse_loss(outputs: torch.Tensor, y: torch.Tensor, mean_weight: float = 5.0) -> torch.Tensor:
    """Squared error that counts more near nuclei (MICRONET, eq. 2).

    ``1/2 sum (y + lambda ybar) (o - y)^2 / pixels``, where ``ybar`` is the mean of ``y`` over one image, so
    that background counts more in an image with many nuclei; then averaged over the images of the mini-batch.
    An image without a nucleus has the weight 0 everywhere: it costs nothing whatever the output, and teaches
    nothing.

    Args:
        outputs: The network's outputs as they are, ``(n, ...)``: one image per row.
        y: Proximity, at least 0, in the outputs' scale and of the same shape.
        mean_weight: The paper's lambda, at least 0.

    Raises:
        ValueError: The shapes differ or have one dimension, or ``mean_weight`` is negative.
    """
    if not mean_weight >= 0:
        raise ValueError(f"mean_weight is {mean_weight}; expected 0 or more.")
    outputs, y = _in_full_precision(outputs, y)
    if y.ndim < 2:
        raise ValueError(f"y has shape {tuple(y.shape)}; expected images along the first of two or more.")
    pixel_weight = y + mean_weight * y.mean(dim=tuple(range(1, y.ndim)), keepdim=True)
    return 0.5 * (pixel_weight * (outputs - y) ** 2).mean()


def nucleus_distance_loss(logits: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Of Karyon's outlines: cross-entropy of both maps, plus Dice of the nuclei.

    The distance's truth is any number from 0 to 1, and its cross-entropy is least where its probability is
    that number.

    Args:
        logits: Nucleus and distance, ``(n, 2, h, w)``.
        g: Truth in [0, 1], of the same shape.

    Raises:
        ValueError: The shapes differ, or there are not two maps.
    """
    if logits.shape[1:2] != (2,):
        raise ValueError(
            f"outputs have shape {tuple(logits.shape)}; expected two maps, nucleus and distance."
        )
    logits, g = _in_full_precision(logits, g)
    return bce_dice_loss(logits[:, :1], g[:, :1]) + bce_loss(logits[:, 1:], g[:, 1:])


def patch_weighted_loss(logits: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Softmax cross-entropy that counts more in a crop's middle (NB, section II-C3).

    Each pixel's is multiplied by the weight by which overlapping tiles are blended, ``border_weight``,
    over its mean.

    Args:
        logits: Of each class, ``(n, k, side, side)``.
        g: Truth of each class, 0 or 1, of the same shape.

    Raises:
        ValueError: The shapes differ, there is only one class, or crops are not square.
    """
    if logits.shape[1] < 2 or logits.shape[2] != logits.shape[3]:
        raise ValueError(f"outputs have shape {tuple(logits.shape)}; expected classes of square crops.")
    logits, g = _in_full_precision(logits, g)
    weight = torch.from_numpy(border_weight(logits.shape[3])).to(logits)
    entropy = -(g * functional.log_softmax(logits, dim=1)).sum(dim=1)
    return (weight / weight.mean() * entropy).mean()


def _in_full_precision(outputs: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in float32, or in float64 where the outputs are; of one shape, for products would broadcast."""
    if outputs.shape != target.shape:
        raise ValueError(
            f"outputs have shape {tuple(outputs.shape)}, the target {tuple(target.shape)}; expected the same."
        )
    dtype = torch.promote_types(outputs.dtype, torch.float32)
    return outputs.to(dtype), target.to(dtype)


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "bce": bce_loss,
    "dice": dice_loss,
    "inverted_dice": inverted_dice_loss,
    "focal": focal_loss,
    "bce_dice": bce_dice_loss,
    "bce_dice_inverted": bce_dice_inverted_loss,
    "switching": switching_loss,
    "weighted_mse": weighted_mse_loss,
    "nucleus_distance": nucleus_distance_loss,
    "patch_weighted": patch_weighted_loss,
    "joint": joint_loss,
}
