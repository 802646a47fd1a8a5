"""Folding batch norm changes the network's form, not its function."""

from __future__ import annotations

import torch
from torch import nn

from karyon.models.folding import fold_batch_norm
from karyon.models.unet import UNet


def network_with_statistics() -> UNet:
    torch.manual_seed(3)
    network = UNet(width=4, depth=3).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.3, 3.0)
            for values in (module.bias, module.running_mean):
                nn.init.uniform_(values, -1.0, 1.0)
    return network


@torch.inference_mode()
def test_folded_network_gives_the_same_and_has_no_batch_norm() -> None:
    network = network_with_statistics()
    pixels = torch.rand(2, 1, 32, 40)
    expected = network(pixels)
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(pixels), expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


def test_network_that_was_folded_is_left_as_it_was() -> None:
    network = network_with_statistics()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fold_batch_norm(network)
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_batch_norm_after_something_else_stays() -> None:
    network = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1))
    assert isinstance(fold_batch_norm(network)[1], nn.BatchNorm2d)  # type: ignore[index]
