"""The exponential moving average of a network."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import PARAM_LIST, AveragedModel


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of the network whose weights and buffers follow it, ``average = d average + (1 - d) network``.

    The first update takes the network as it is; in the ``k``-th after it ``d`` is ``min(decay, (1 + k) /
    (10 + k))``. With the full decay at once, the first weights and the first statistics of batch norm would
    keep a share of ``decay^k``: at 0.999 more than a third after 1000 steps, and a network validated then is
    poor.

    Args:
        network: Where it starts.
        decay: 0 to 1; 0 makes the average the network itself.
    """

    @torch.no_grad()
    def follow(average: PARAM_LIST, current: PARAM_LIST, updates: torch.Tensor | int) -> None:
        k = int(updates)
        share = 1 - min(decay, (1 + k) / (10 + k))
        for one, other in zip(average, current, strict=True):
            if one.is_floating_point():
                one.lerp_(other, share)
            else:
                one.copy_(other)  # batch norm's count of batches

    return AveragedModel(network, multi_avg_fn=follow, use_buffers=True)
