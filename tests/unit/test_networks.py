"""The papers' networks: any size, reach as documented, no trace of the window, parameters counted by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from karyon.errors import KaryonError
from karyon.models.fcn8s import FCN8s
from karyon.models.folding import fold_batch_norm
from karyon.models.network import Network
from karyon.models.receptive_field import measure_reach
from karyon.models.registry import ARCHITECTURES, blocks, build, channels_last, halo_and_stride
from karyon.models.segnet import SegNet

# Narrow, so that reach and size are those of the paper and the arithmetic is not.
NARROW: dict[str, dict[str, int]] = {
    "efficientnet_unet": {"width": 2},
    "fcn8s": {"width": 2},
    "fcrn_a": {"width": 2},
    "fcrn_b": {"width": 2},
    "frcn": {"width": 2},
    "gcn": {"width": 2, "depth": 50},
    "micronet": {"width": 2},
    "nb": {"width": 2},
    "resnet34_unet": {"width": 2},
    "segnet": {"width": 2},
    "vgg_unet": {"width": 2},
}
NORMALISED = ("efficientnet_unet", "fcrn_a", "fcrn_b", "gcn", "micronet", "resnet34_unet", "segnet")


class EveryPlace(nn.Module):
    """Unpooling that puts a maximum at all the places it can come from."""

    def forward(self, x: torch.Tensor, argmax: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def narrow(name: str, **arguments: int) -> Network:
    torch.manual_seed(3)
    network = build(name, **NARROW[name], **arguments)
    assert isinstance(network, Network)
    return network


def randomised(name: str, positive: bool = False) -> Network:
    """Evaluation mode, float64, weights that keep activations near 1 so that nothing is lost to rounding.

    With ``positive`` weights no ReLU and no cancellation hides a dependence.
    """
    network = narrow(name).double().eval()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                shape = layer.weight.shape
                inputs = layer.weight[0].numel() if isinstance(layer, nn.Conv2d) else shape[0]
                if positive:
                    layer.weight.uniform_(0.5, 1.5).div_(inputs)
                else:
                    layer.weight.normal_(std=(2 / inputs) ** 0.5)
            if isinstance(layer, nn.BatchNorm2d) and not positive:
                layer.running_mean.normal_(std=0.1)
                layer.running_var.uniform_(0.5, 2.0)
    return network


def count(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def test_every_network_of_the_papers_is_tested_here() -> None:
    assert {"unet", *NARROW} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", NARROW)
def test_any_size_and_number_of_channels_gives_a_map_of_the_same_size(name: str) -> None:
    network = narrow(name, in_channels=4, out_channels=3).eval()
    with torch.inference_mode():
        for size in [(1, 1), (33, 50), (64, 32)]:
            assert network(torch.rand(2, 4, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("rows", [True, False])
def test_reach_is_what_gradients_show(name: str, rows: bool) -> None:
    network = randomised(name, positive=True)
    if isinstance(network, SegNet):
        network.unpool = EveryPlace()
    stride = network.stride
    side = 2 * (network.reach + 2 * stride)
    side += -side % stride
    place = side // 2 // stride * stride
    # An output at each place within the stride. Images that rise or fall along the strip lead each pooling to
    # its far side.
    ramp = torch.linspace(1, 2, side, dtype=torch.float64)[:, None].expand(side, stride)
    farthest = 0
    for image in (ramp, ramp.flip(0)):
        strips = (image if rows else image.T).expand(stride, 1, -1, -1).clone().requires_grad_()
        logits = network(strips)[:, 0]
        lines = logits.sum(dim=2 if rows else 1)
        lines[torch.arange(stride), place + torch.arange(stride)].sum().backward()
        assert strips.grad is not None
        seen = strips.grad[:, 0].abs().sum(dim=2 if rows else 1)
        phase, line = torch.nonzero(seen, as_tuple=True)
        farthest = max(farthest, int((line - place - phase).abs().max()))
    assert farthest == network.reach


@pytest.mark.parametrize("name", NARROW)
@torch.inference_mode()
def test_map_does_not_depend_on_where_the_window_starts(name: str) -> None:
    network = randomised(name)
    halo, stride = halo_and_stride(network)
    length = 2 * halo + 3 * stride
    strip = torch.rand(1, 1, length + stride, stride, dtype=torch.float64)
    for image in (strip, strip.transpose(2, 3)):
        axis = 2 if image is strip else 3
        here = network(image.narrow(axis, 0, length)).narrow(axis, network.reach + stride, length - 2 * halo)
        there = network(image.narrow(axis, stride, length)).narrow(axis, network.reach, length - 2 * halo)
        scale = float(here.std())
        assert scale > 0
        torch.testing.assert_close(there / scale, here / scale, rtol=0, atol=1e-9)
        # A window one pixel further on would show: this is no network that ignores its input's place.
        other = network(image.narrow(axis, 1, length)).narrow(
            axis, network.reach + stride - 1, length - 2 * halo
        )
        assert float((other - here).abs().max()) > 1e-3 * scale


@pytest.mark.parametrize("name", [*NARROW, "unet"])
def test_every_parameter_is_in_exactly_one_block(name: str) -> None:
    network = build(name, width=2)
    held = [id(value) for block in blocks(network) for value in block.parameters()]
    assert len(held) == len(set(held))
    assert set(held) == {id(value) for value in network.parameters()}


@pytest.mark.parametrize("name", [*NARROW, "unet"])
def test_blocks_are_in_order_from_input_to_output(name: str) -> None:
    network = build(name, width=2).eval()
    called: list[int] = []
    for number, block in enumerate(blocks(network)):
        for layer in block.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.register_forward_hook(lambda *_, number=number: called.append(number))
    network(torch.rand(1, 1, 32, 32))
    first_calls = list(dict.fromkeys(called))
    assert first_calls == list(range(len(blocks(network))))


def test_micronet_has_the_ten_blocks_of_its_paper() -> None:
    numbered = blocks(build("micronet", width=2))
    assert len(numbered) == 10
    convolutions = [
        [layer for layer in block.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
        for block in numbered
    ]
    assert len(convolutions[0]) == 1  # input transition: one convolution
    assert [block[0].stride for block in convolutions[1:5]] == [(2, 2)] * 4
    assert all(isinstance(block[0], nn.ConvTranspose2d) for block in convolutions[5:9])
    assert sum(isinstance(layer, nn.Conv2d) for layer in convolutions[9]) == 2  # output transition
    dropouts = [
        any(isinstance(layer, nn.Dropout2d) and layer.p == 0.5 for layer in block.modules())
        for block in numbered
    ]
    assert dropouts == [False, False, False, True, True, False, False, False, False, False]


@pytest.mark.parametrize("name", NARROW)
def test_docstring_states_stride_reach_and_parameters(name: str) -> None:
    with torch.device("meta"):
        network = build(name)
    words = " ".join((type(network).__doc__ or "").split())
    assert f"stride {network.stride}, reach {network.reach} px, {count(network):,} parameters" in words


def test_gcn_of_fifty_layers_reaches_as_documented() -> None:
    with torch.device("meta"):
        network = build("gcn", depth=50)
    assert f"With depth 50 it is {network.reach} px" in " ".join((type(network).__doc__ or "").split())


def convolution(inputs: int, outputs: int, size: int = 3) -> int:
    return size * size * inputs * outputs + outputs


def normalised(inputs: int, outputs: int, size: int = 3) -> int:
    """Without bias, with batch norm's factor and offset."""
    return size * size * inputs * outputs + 2 * outputs


def test_parameter_counts_are_those_of_the_published_layers() -> None:
    vgg16 = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    pairs = list(zip([3, *vgg16], vgg16, strict=False))
    mirror = [(outputs, inputs) for inputs, outputs in pairs[:0:-1]]
    expected = sum(normalised(*pair) for pair in [*pairs, *mirror]) + convolution(64, 12)
    chain = [1, 32, 64, 128, 512, 128, 64, 32]
    halving = [32, 64, 128, 256]
    hand = {
        "segnet": expected,
        "fcn8s": sum(convolution(*pair) for pair in pairs)
        + convolution(512, 4096, 7)
        + convolution(4096, 4096, 1)
        + sum(convolution(inputs, 21, 1) for inputs in (256, 512, 4096))
        + (4 * 4 + 4 * 4 + 16 * 16) * 21 * 21,
        "fcrn_a": sum(normalised(*pair) for pair in pairwise(chain)) + convolution(32, 1),
        "nb": sum(convolution(*pair) for pair in pairwise([3, 32, 32, 64, 64, 128, 128, 256, 256]))
        + sum(convolution(3 * fine, fine) + convolution(fine, fine) for fine in halving[:-1])
        + convolution(32, 3),
        # EfficientNet-Lite0 to block 10 has 700,768 (counted in its published weights).
        "efficientnet_unet": 700_768
        + sum(
            convolution(coarse, fine, 2) + normalised(fine + skip, fine) + normalised(fine, fine)
            for fine, coarse, skip in ((96, 112, 40), (48, 96, 24), (24, 48, 16))
        )
        + convolution(24, 4 * 2, 1),
        # ResNet34 has 21,797,672 (torchvision), of which its classifier is 1000 times 513.
        "resnet34_unet": 21_797_672
        - 1000 * 513
        + sum(
            convolution(coarse, coarse // 2, 2)
            + normalised(coarse // 2 + fine, fine)
            + normalised(fine, fine)
            for fine, coarse in ((256, 512), (128, 256), (64, 128), (64, 64))
        )
        + convolution(64, 5, 2),
    }
    arguments = {
        "efficientnet_unet": {"in_channels": 3, "out_channels": 2},
        "segnet": {"in_channels": 3, "out_channels": 12},
        "fcn8s": {"in_channels": 3, "out_channels": 21},
        "fcrn_a": {},
        "nb": {"in_channels": 3, "out_channels": 3},
        "resnet34_unet": {"in_channels": 3, "out_channels": 5},
    }
    with torch.device("meta"):
        counted = {name: count(build(name, **arguments[name])) for name in hand}
    assert counted == hand
    assert round(counted["fcn8s"] / 1e6) == 134  # Long et al. 2015, table 1
    with torch.device("meta"):
        encoders = SegNet(in_channels=3).encoders
    assert round(count(encoders) / 1e6, 1) == 14.7  # Badrinarayanan et al. 2017, section 3


def test_micronet_parameter_count_follows_from_its_description() -> None:
    width = 4
    levels = [width, 2 * width, 4 * width, 8 * width, 8 * width]
    down = [
        normalised(fine, coarse) + depth * normalised(coarse, coarse)
        for fine, coarse, depth in zip(levels, levels[1:], (1, 2, 2, 2), strict=False)
    ]
    coarse_inputs = [8 * width, 16 * width, 8 * width, 4 * width]
    up = [
        normalised(coarse, fine) + depth * normalised(2 * fine, 2 * fine)
        for coarse, fine, depth in zip(coarse_inputs, levels[3::-1], (2, 2, 1, 1), strict=True)
    ]
    aggregation = normalised(4 * width, 2 * width, 4) + normalised(8 * width, 2 * width, 8)
    output = normalised(6 * width, width, 5) + convolution(width, 2, 1)
    expected = normalised(3, width) + sum(down) + sum(up) + aggregation + output
    assert count(build("micronet", in_channels=3, out_channels=2, width=width)) == expected


def test_nb_starts_with_glorots_weights_and_drops_a_fifth_after_every_convolution() -> None:
    torch.manual_seed(0)
    layers = [layer for layer in build("nb", width=8).modules() if not list(layer.children())]
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    for layer in convolutions:
        bound = (6 / (9 * (layer.in_channels + layer.out_channels))) ** 0.5
        assert 0.9 * bound < float(layer.weight.detach().abs().max()) <= bound
        assert layer.bias is not None
        assert not layer.bias.any()
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.2] * (len(convolutions) - 1)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in layers)


@torch.inference_mode()
def test_segnet_puts_maxima_back_as_torch_does() -> None:
    # Encoders and decoders that pass everything on leave pooling and unpooling, five deep.
    network = narrow("segnet").eval()
    network.encoders = nn.ModuleList(nn.Identity() for _ in range(5))
    network.decoders = nn.ModuleList(nn.Identity() for _ in range(5))
    image = torch.rand(2, 3, 64, 96)
    expected = torch.zeros_like(image)
    for n, c, row, column in torch.cartesian_prod(*map(torch.arange, (2, 3, 2, 3))).tolist():
        cell = image[n, c, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
        place = divmod(int(cell.argmax()), 32)
        expected[n, c, 32 * row + place[0], 32 * column + place[1]] = cell.max()
    torch.testing.assert_close(network(image), expected, rtol=0, atol=0)
    x, argmax = functional.max_pool2d(image, 2, return_indices=True)
    restored = functional.max_unpool2d(x, argmax, 2)
    torch.testing.assert_close(network.unpool(*network.pool(image)), restored, rtol=0, atol=0)
    last_format = image.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(last_format), expected, rtol=0, atol=0)


@torch.inference_mode()
def test_fcn8s_upsamples_bilinearly_until_it_is_trained() -> None:
    network = FCN8s(width=2)
    image = torch.rand(1, 1, 12, 10, dtype=torch.float32)
    for layer, factor in ((network.doublings[0], 2), (network.eightfold, 8)):
        expected = functional.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)
        inner = (
            ...,
            slice(factor, -factor),
            slice(factor, -factor),
        )  # torch repeats the border, zeros lie here
        torch.testing.assert_close(layer(image)[inner], expected[inner])


@pytest.mark.parametrize("name", NORMALISED)
@torch.inference_mode()
def test_folding_batch_norm_changes_nothing_but_the_form(name: str) -> None:
    network = randomised(name).float()
    pixels = torch.rand(2, 1, 64, 32)
    expected = network(pixels)
    folded = fold_batch_norm(network)
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in n.modules()) for n in (network, folded)]
    assert norms[1] < norms[0] / 2
    scale = expected.std()
    torch.testing.assert_close(folded(pixels) / scale, expected / scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NARROW)
@torch.inference_mode()
def test_channels_last_and_bfloat16_give_nearly_the_same(name: str) -> None:
    network = randomised(name).float()
    pixels = torch.rand(2, 1, 64, 32)
    expected = network(pixels)
    reordered = channels_last(network)(pixels.contiguous(memory_format=torch.channels_last))
    scale = expected.std()
    torch.testing.assert_close(reordered / scale, expected / scale, rtol=0, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(pixels).float()
    assert rough.isfinite().all()
    assert float(torch.corrcoef(torch.stack([rough.flatten(), expected.flatten()]))[0, 1]) > 0.9


@pytest.mark.parametrize("name", sorted(set(NARROW) - {"fcn8s"}))
def test_fresh_weights_keep_the_scale_of_their_input(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, **{**NARROW[name], "width": 8}).train()
    with torch.no_grad():
        spread = float(network(torch.randn(2, 1, 64, 64)).std())
    assert 0.03 < spread < 30


def test_unknown_architecture_lists_those_there_are_and_the_nearest() -> None:
    with pytest.raises(
        KaryonError,
        match=r"'Micro-Net'; known: efficientnet_unet, fcn8s, fcrn_a.*\(did you mean 'micronet'\?\)",
    ):
        build("Micro-Net")


def test_depth_that_no_resnet_has_is_refused() -> None:
    with pytest.raises(KaryonError, match="depth is 34; expected one of 50, 101, 152"):
        build("gcn", depth=34)


def test_network_without_numbered_blocks_is_refused() -> None:
    with pytest.raises(TypeError, match="Linear has no numbered blocks"):
        blocks(nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("layers", "stride", "reach"),
    [
        ([nn.Conv2d(1, 1, 3, padding=1)], 1, 1),
        ([nn.Conv2d(1, 1, 1)], 1, 0),
        # A cell of two: the first row of it sees the second, and the other way round.
        ([nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="nearest")], 2, 1),
        # Row 0 lies a quarter of a cell from cell 0's centre, towards cell -1 (rows -2 and -1).
        ([nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")], 2, 2),
        ([nn.AvgPool2d(4), nn.ConvTranspose2d(1, 1, 4, stride=4)], 4, 3),
        ([nn.MaxPool2d(2), nn.Conv2d(1, 1, 3, padding=1), nn.MaxUnpool2d(2)], 2, 3),
    ],
)
def test_reach_of_small_chains_is_that_worked_out_by_hand(
    layers: list[nn.Module], stride: int, reach: int
) -> None:
    assert measure_reach(layers, stride) == reach
