"""The moving average against sums written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from karyon.models.registry import build
from karyon.training.moving_average import moving_average


def follow(values: list[float], decay: float) -> float:
    """The average of a network that is one number."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 100.0)
    average = moving_average(network, decay)
    for value in values:
        nn.init.constant_(network.weight, value)
        average.update_parameters(network)
    return average.module.weight.item()


def test_average_follows_fast_at_first() -> None:
    # The first value as it is; then decays 2/11 and 3/12.
    after_two = 2 / 11 * 1 + 9 / 11 * 2
    assert follow([1, 2], 0.999) == pytest.approx(after_two)
    assert follow([1, 2, 5], 0.999) == pytest.approx(3 / 12 * after_two + 9 / 12 * 5)


def test_decay_is_never_above_its_own() -> None:
    # (1 + k) / (10 + k) passes 0.25 after k = 2.
    expected = 1.0
    values = [1.0, 4.0, 2.0, 8.0, 16.0]
    for value, decay in zip(values[1:], (2 / 11, 0.25, 0.25, 0.25), strict=True):
        expected = decay * expected + (1 - decay) * value
    assert follow(values, 0.25) == pytest.approx(expected)


def test_without_decay_the_average_is_the_network_to_the_last_bit() -> None:
    assert follow([0.1, 0.3, 0.7], 0.0) == torch.tensor(0.7).item()


def test_batch_norm_of_the_average_is_usable_after_few_steps() -> None:
    torch.manual_seed(0)
    network = build("unet", width=4, depth=2)
    average = moving_average(network, 0.999)
    plain = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
    first = {name: value.clone() for name, value in network.state_dict().items()}
    weights = torch.optim.SGD(network.parameters(), lr=1e-3)
    inputs = 5 + 3 * torch.randn(4, 1, 16, 16)
    for _ in range(40):
        network(inputs).square().mean().backward()
        weights.step()
        weights.zero_grad()
        average.update_parameters(network)
        plain.update_parameters(network)
    for name, value in network.state_dict().items():
        found = average.module.state_dict()[name]
        if "running" in name:
            # With 0.999 throughout, 96 % of it would be the first step's.
            assert (found - value).norm() < 0.1 * (first[name] - value).norm(), name
        elif "num_batches" in name:
            assert found == 40
    with torch.inference_mode():
        now = network.eval()(inputs)
        near, far = (model.module.eval()(inputs) - now for model in (average, plain))
    assert near.norm() < 0.2 * now.norm()
    assert far.norm() > 0.4 * now.norm()
