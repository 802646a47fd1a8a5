"""The U-Net's size, reach and symmetry, from its definition."""

from __future__ import annotations

import pytest
import torch

from karyon.models.unet import UNet


def randomised(network: UNet, seed: int = 0) -> UNet:
    """All parameters and statistics random, evaluation mode, float64."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) - 0.3)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 2.0, generator=generator)
    return network.double().eval()


def parameter_count(inputs: int, outputs: int, width: int, depth: int) -> int:
    """3 x 3 convolutions without bias, each with 2 batch norm parameters per filter; 2 x 2 up; 1 x 1 head."""

    def double(a: int, b: int) -> int:
        return 9 * a * b + 2 * b + 9 * b * b + 2 * b

    widths = [width * 2**k for k in range(depth)]
    down = sum(double(a, b) for a, b in zip([inputs, *widths[:-1]], widths, strict=True))
    up = sum(4 * 2 * fine * fine + fine + double(2 * fine, fine) for fine in widths[:-1])
    return down + up + width * outputs + outputs


@pytest.mark.parametrize("shape", [(1, 1, 16, 4), (3, 1, 8, 5), (1, 2, 4, 2), (2, 1, 3, 1)])
def test_parameter_count_is_that_of_the_published_layers(shape: tuple[int, int, int, int]) -> None:
    network = UNet(*shape)
    assert sum(value.numel() for value in network.parameters()) == parameter_count(*shape)


@pytest.mark.parametrize(("depth", "fold"), [(1, 1), (2, 1), (3, 1), (4, 1), (2, 2), (3, 2)])
def test_no_output_pixel_depends_on_an_input_pixel_beyond_reach(depth: int, fold: int) -> None:
    network = randomised(UNet(width=2, depth=depth, fold=fold))
    for phase in range(network.stride):
        gradient, place = input_gradient(network, phase)
        rows, columns = torch.nonzero(gradient, as_tuple=True)
        assert len(rows) > 9
        assert int(torch.maximum((rows - place).abs(), (columns - place).abs()).max()) <= network.reach


@pytest.mark.parametrize(("depth", "fold"), [(1, 1), (2, 1), (3, 1), (4, 1), (2, 2), (2, 3)])
def test_reach_is_attained(depth: int, fold: int) -> None:
    # With weights above 0 no ReLU and no cancellation hides a dependence.
    network = UNet(width=2, depth=depth, fold=fold)
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.rand(value.shape, generator=torch.Generator().manual_seed(1)) + 0.1)
    network = network.double().eval()
    farthest = 0
    for phase in range(network.stride):
        gradient, place = input_gradient(network, phase)
        rows, _ = torch.nonzero(gradient, as_tuple=True)
        farthest = max(farthest, int((rows - place).abs().max()))
    assert farthest == network.reach


def input_gradient(network: UNet, phase: int) -> tuple[torch.Tensor, int]:
    """Which inputs one output pixel depends on, over several random images, and the pixel's place."""
    side = 2 * (network.reach + 2 * network.stride)
    side += -side % network.stride
    place = side // 2 // network.stride * network.stride + phase
    images = torch.rand(
        6, 1, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(phase)
    ).requires_grad_()
    network(images)[:, 0, place, place].sum().backward()
    assert images.grad is not None
    return images.grad[:, 0].abs().sum(dim=0), place


@pytest.mark.parametrize("size", [(8, 8), (8, 40), (24, 16), (56, 32)])
def test_any_multiple_of_the_stride_keeps_its_size(size: tuple[int, int]) -> None:
    network = UNet(in_channels=3, out_channels=2, width=2, depth=4).eval()
    assert network.stride == 8
    assert network(torch.rand(2, 3, *size)).shape == (2, 2, *size)


def test_translation_by_the_stride_commutes_away_from_the_borders() -> None:
    network = randomised(UNet(width=2, depth=3))
    down, right, reach = 2 * network.stride, network.stride, network.reach
    image = torch.rand(1, 1, 96, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        here = network(image)[0, 0]
        there = network(torch.roll(image, (down, right), dims=(2, 3)))[0, 0]
    inner = slice(reach + down, 96 - reach)
    across = slice(reach + right, 96 - reach)
    shifted = here[inner.start - down : inner.stop - down, across.start - right : across.stop - right]
    torch.testing.assert_close(there[inner, across], shifted, rtol=0, atol=1e-12)
    assert float(shifted.std()) > 1e-3


def test_folded_pixels_are_what_four_strided_images_would_be() -> None:
    folded = randomised(UNet(in_channels=1, out_channels=2, width=3, depth=2, fold=2), seed=5)
    plain = UNet(in_channels=4, out_channels=8, width=3, depth=2).double().eval()
    plain.load_state_dict(folded.state_dict())
    image = torch.rand(1, 1, 24, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    corners = [(0, 0), (0, 1), (1, 0), (1, 1)]
    strided = torch.cat([image[:, :, y::2, x::2] for y, x in corners], dim=1)
    with torch.inference_mode():
        maps, parts = folded(image), plain(strided)
    for place, (y, x) in enumerate(corners):
        torch.testing.assert_close(maps[:, :, y::2, x::2], parts[:, [place, 4 + place]], rtol=0, atol=0)
