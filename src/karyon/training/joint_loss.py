"""JOINT's loss (section 2.3): weighted cross-entropy of partial labels, and a perceptual term."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch.nn import functional

from karyon.models.vgg import VGG16Features


def joint_loss(
    logits: torch.Tensor, target: torch.Tensor, beta: float = 0.1, vgg16_weights: str = ""
) -> torch.Tensor:
    """``L_ce + beta L_per`` (eqs. 1, 3 and 4), where labels may be partial.

    A pixel's label is the set of maps that it may be, and its cross-entropy is ``-w log`` of the sum of their
    probabilities. So it is the ordinary one where one map may be, and nothing where all may.

    ``L_per`` is the mean over four levels of the mean squared difference of VGG16's features of two pictures,
    the predicted and the true contours, each map as all three colours as in the authors' published code. (The
    paper compares "the prediction map", an argmax, which has no gradient.) Where a pixel's label is not
    known, the true contour is as likely as the prediction has it among what the pixel may be.

    Args:
        logits: Background, insides and, last, the contour, ``(n, k, h, w)``.
        target: Which of them each pixel may be, 0 or 1, at least one; then its weight, ``(n, k + 1, h, w)``.
        beta: At least 0.
        vgg16_weights: File of torchvision's ``vgg16``; '' leaves the perceptual term out.

    Raises:
        ValueError: The shapes do not fit, or ``beta`` is negative.
        KaryonError: The file is missing, or holds no VGG16.
    """
    if logits.ndim != 4 or target.shape != (len(logits), logits.shape[1] + 1, *logits.shape[2:]):
        raise ValueError(
            f"outputs have shape {tuple(logits.shape)}, the target {tuple(target.shape)}; expected a map "
            "more of the target: the pixels' weight."
        )
    if not beta >= 0:
        raise ValueError(f"beta is {beta}; expected 0 or more.")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    allowed, weight = target[:, :-1] > 0.5, target[:, -1].to(logits.dtype)
    possible = logits.masked_fill(~allowed, -torch.inf)
    loss = (weight * (logits.logsumexp(dim=1) - possible.logsumexp(dim=1))).mean()
    if vgg16_weights:
        features = _features(vgg16_weights, logits.device, logits.dtype)
        predicted, true = (features(_contour(values)) for values in (logits, possible.detach()))
        levels = [functional.mse_loss(*pair) for pair in zip(predicted, true, strict=True)]
        loss = loss + beta * torch.stack(levels).mean()
    return loss


def _contour(logits: torch.Tensor) -> torch.Tensor:
    """Probability of the contour as a picture, ``(n, 3, h, w)``."""
    return torch.softmax(logits, dim=1)[:, -1:].expand(-1, 3, -1, -1)


@cache
def _features(path: str, device: torch.device, dtype: torch.dtype) -> VGG16Features:
    """VGG16, read once and for all."""
    return VGG16Features(Path(path)).to(device, dtype)
