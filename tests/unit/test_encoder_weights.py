"""ImageNet weights arrive in the right layers, and a wrong file is refused by name."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from karyon.errors import KaryonError
from karyon.models.efficientnet_unet import EfficientNetUNet
from karyon.models.encoder_weights import load_encoder
from karyon.models.fcn8s import FCN8s
from karyon.models.registry import build
from karyon.models.resnet_unet import ResNet34UNet
from karyon.models.vgg_unet import VGGUNet

# torchvision's configurations: filters in units of the width, "M" a pooling.
LAYOUTS = {
    "vgg11": [1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8, "M"],
    "vgg16": [1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, "M", 8, 8, 8, "M"],
}
WIDTH = 2
# Of batch norm.
STATISTICS = ("running_mean", "running_var", "weight", "bias")
# EfficientNet-Lite0's blocks: expansion, filters, kernel, stride (Tan and Le 2019, table 1).
LITE0 = [
    (1, 16, 3, 1),
    *[(6, 24, 3, 2), (6, 24, 3, 1)],
    *[(6, 40, 5, 2), (6, 40, 5, 1)],
    *[(6, 80, 3, 2), (6, 80, 3, 1), (6, 80, 3, 1)],
    *[(6, 112, 5, 1), (6, 112, 5, 1), (6, 112, 5, 1)],
    *[(6, 192, 5, 2), (6, 192, 5, 1), (6, 192, 5, 1), (6, 192, 5, 1)],
    (6, 320, 3, 1),
]


class VGG(nn.Module):
    """As in torchvision: features, pooling to 7 x 7 (here the input's size sees to that), classifier."""

    def __init__(self, layout: str, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for entry in LAYOUTS[layout]:
            if entry == "M":
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, int(entry) * width, 3, padding=1), nn.ReLU()]
                channels = int(entry) * width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(channels * 49, 64 * width),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(64 * width, 64 * width),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(64 * width, 10),
        )


def vgg(layout: str, width: int = WIDTH) -> VGG:
    torch.manual_seed(len(layout) + width)
    return VGG(layout, width).eval()


class Block(nn.Module):
    """torchvision's ``BasicBlock``."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != filters:
            conv = nn.Conv2d(inputs, filters, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(filters))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet34(nn.Module):
    """As in torchvision, with batch norm that has seen images."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for level, count in enumerate((3, 4, 6, 3)):
            filters, blocks = width * 2**level, []
            for number in range(count):
                blocks.append(Block(inputs, filters, 2 if level and not number else 1))
                inputs = filters
            setattr(self, f"layer{level + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(8 * width, 10)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, std=0.2)
                layer.running_mean.normal_(std=0.2)
                layer.running_var.uniform_(0.5, 2.0)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))  # type: ignore[operator]


@pytest.fixture
def written(tmp_path: Path) -> Callable[[dict[str, torch.Tensor]], Path]:
    def write(weights: dict[str, torch.Tensor]) -> Path:
        path = tmp_path / "vgg.pth"
        torch.save(weights, path)
        return path

    return write


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@torch.inference_mode()
def test_vgg_unet_sees_what_vgg11_sees(tmp_path: Path, suffix: str) -> None:
    original = vgg("vgg11")
    path = tmp_path / f"weights{suffix}"
    save = torch.save if suffix == ".pth" else save_file
    save(original.state_dict(), path)
    network = VGGUNet(in_channels=3, width=WIDTH).eval()
    head = [value.clone() for value in network.head.parameters()]
    load_encoder(network, path)
    image = torch.rand(2, 3, 64, 64)
    x = image
    for encoder in network.encoders:
        x = network.pool(encoder(x))
    torch.testing.assert_close(x, original.features(image))
    assert all(torch.equal(*pair) for pair in zip(head, network.head.parameters(), strict=True))


@torch.inference_mode()
def test_fcn8s_is_vgg16_with_its_classifier_at_every_place(written: Callable[..., Path]) -> None:
    original = vgg("vgg16")
    network = FCN8s(in_channels=3, width=WIDTH).eval()
    load_encoder(network, written(original.state_dict()))
    image = torch.rand(1, 3, 7 * 32, 7 * 32)
    x = image
    for encoder in network.encoders:
        x = network.pool(encoder(x))
    features = original.features(image)
    torch.testing.assert_close(x, features)
    # The one place where 7 x 7 features are all there is the middle.
    expected = original.classifier[:6](features.flatten(1))
    torch.testing.assert_close(network.classifier(x)[:, :, 3, 3], expected)


@pytest.mark.parametrize("counted", [True, False])
@torch.inference_mode()
def test_resnet34_unet_sees_what_resnet34_sees(counted: bool, written: Callable[..., Path]) -> None:
    torch.manual_seed(1)
    original = ResNet34(WIDTH).eval()
    # Files of before torch 0.4.1 do not say how many batches batch norm has seen.
    weights = {name: value for name, value in original.state_dict().items() if counted or "num" not in name}
    network = ResNet34UNet(in_channels=3, width=WIDTH).eval()
    rest = [value.clone() for value in network.merge.parameters()]
    load_encoder(network, written(weights))
    image = torch.rand(2, 3, 64, 96)
    x = network.pool(network.stem(image))
    for stage in network.stages:
        x = stage(x)
    torch.testing.assert_close(x, original.features(image))
    assert all(torch.equal(*pair) for pair in zip(rest, network.merge.parameters(), strict=True))


def lite0_weights() -> dict[str, torch.Tensor]:
    """Random weights by the names and shapes of EfficientNet-Lite0's, of all its sixteen blocks."""
    torch.manual_seed(2)
    weights = {"_conv_stem.weight": torch.randn(32, 3, 3, 3) / 5, "_fc.weight": torch.zeros(10, 1280)}
    weights["_conv_head.weight"] = torch.zeros(1280, 320, 1, 1)

    def norm(name: str, channels: int) -> None:
        positive, small = torch.rand(2, channels) + 0.5, torch.randn(2, channels) / 5
        values = (small[0], positive[0], positive[1], small[1])
        weights.update(zip((f"{name}.{key}" for key in STATISTICS), values, strict=True))

    norm("_bn0", 32)
    norm("_bn1", 1280)
    inputs = 32
    for number, (expansion, filters, kernel, _) in enumerate(LITE0):
        place, between = f"_blocks.{number}", inputs * expansion
        if expansion > 1:
            weights[f"{place}._expand_conv.weight"] = torch.randn(between, inputs, 1, 1) / inputs**0.5
            norm(f"{place}._bn0", between)
        weights[f"{place}._depthwise_conv.weight"] = torch.randn(between, 1, kernel, kernel) / kernel
        norm(f"{place}._bn1", between)
        weights[f"{place}._project_conv.weight"] = torch.randn(filters, between, 1, 1) / between**0.5
        norm(f"{place}._bn2", filters)
        inputs = filters
    return weights


def lite0_features(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """What the first eleven blocks make of an image, from the definition, padded on both sides."""

    def convolved(x: torch.Tensor, name: str, norm: str, stride: int = 1, groups: int = 1) -> torch.Tensor:
        kernel = weights[f"{name}.weight"]
        x = functional.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2, groups=groups)
        mean, variance, factor, offset = (weights[f"{norm}.{key}"][:, None, None] for key in STATISTICS)
        return (x - mean) / (variance + 1e-3).sqrt() * factor + offset

    x = convolved(x, "_conv_stem", "_bn0", 2).clamp(0, 6)
    for number, (expansion, _, _, stride) in enumerate(LITE0[:11]):
        place, y = f"_blocks.{number}", x
        if expansion > 1:
            y = convolved(y, f"{place}._expand_conv", f"{place}._bn0").clamp(0, 6)
        y = convolved(y, f"{place}._depthwise_conv", f"{place}._bn1", stride, y.shape[1]).clamp(0, 6)
        y = convolved(y, f"{place}._project_conv", f"{place}._bn2")
        x = x + y if x.shape == y.shape else y
    return x


@torch.inference_mode()
def test_efficientnet_unet_sees_what_lite0_sees(written: Callable[..., Path]) -> None:
    weights = lite0_weights()
    network = EfficientNetUNet(in_channels=3).eval()
    rest = [value.clone() for value in network.merge.parameters()]
    load_encoder(network, written(weights))
    image = torch.rand(2, 3, 64, 96)
    x = network.stem(image)
    for stage in network.stages:
        x = stage(x)
    torch.testing.assert_close(x, lite0_features(weights, image))
    assert all(torch.equal(*pair) for pair in zip(rest, network.merge.parameters(), strict=True))
    del weights["_blocks.10._bn2.running_var"]
    refused(network, written(weights), r"missing: _blocks\.10\._bn2\.running_var; unknown: none")


def test_statistics_of_batch_norm_are_needed(written: Callable[..., Path]) -> None:
    weights = ResNet34(WIDTH).state_dict()
    del weights["layer2.0.downsample.1.running_mean"]
    refused(
        ResNet34UNet(3, width=WIDTH), written(weights), r"missing: layer2\.0\.downsample\.1\.running_mean;"
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@torch.inference_mode()
def test_equal_channels_give_what_a_grey_picture_gives(channels: int, written: Callable[..., Path]) -> None:
    original = vgg("vgg11")
    network = VGGUNet(in_channels=channels, width=WIDTH)
    load_encoder(network, written(original.state_dict()))
    grey = torch.rand(1, 1, 16, 16)
    expected = functional.relu(original.features[0](grey.expand(-1, 3, -1, -1)))
    torch.testing.assert_close(network.encoders[0](grey.expand(-1, channels, -1, -1)), expected)


def refused(network: nn.Module, path: Path, match: str) -> None:
    before = [value.clone() for value in network.parameters()]
    with pytest.raises(KaryonError, match=match):
        load_encoder(network, path)
    assert all(torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))


def test_missing_and_unknown_layers_are_named(written: Callable[..., Path]) -> None:
    weights = vgg("vgg11").state_dict()
    weights["module.features.3.weight"] = weights.pop("features.3.weight")
    refused(
        VGGUNet(in_channels=3, width=WIDTH),
        written(weights),
        r"vgg\.pth: .*missing: features\.3\.weight; unknown: module\.features\.3\.weight",
    )


def test_another_vgg_is_refused(written: Callable[..., Path]) -> None:
    network = VGGUNet(in_channels=3, width=WIDTH)
    refused(
        network, written(vgg("vgg16").state_dict()), r"not the weights of these layers.*features\.\d+.* more"
    )


def test_weights_without_the_classifier_do_for_vgg_unet_only(written: Callable[..., Path]) -> None:
    for layout, network in (("vgg11", VGGUNet(3, width=WIDTH)), ("vgg16", FCN8s(3, width=WIDTH))):
        weights = {name: value for name, value in vgg(layout).state_dict().items() if "features" in name}
        if layout == "vgg11":
            load_encoder(network, written(weights))
        else:
            refused(network, written(weights), r"missing: classifier\.0\.bias, classifier\.0\.weight")


def test_another_width_is_refused_with_both_shapes(written: Callable[..., Path]) -> None:
    path = written(vgg("vgg11", width=4).state_dict())
    match = r"features\.0\.weight has the shape \(4, 3, 3, 3\).*\(2, 3, 3, 3\).*width"
    refused(VGGUNet(in_channels=3, width=WIDTH), path, match)


@pytest.mark.parametrize("name", ["segnet", "unet", "micronet", "gcn"])
def test_network_without_such_an_encoder_is_refused(name: str, written: Callable[..., Path]) -> None:
    network = build(name, width=WIDTH)
    refused(
        network,
        written(vgg("vgg16").state_dict()),
        "no ImageNet encoder; efficientnet_unet, fcn8s,",
    )


def test_file_that_would_run_code_is_refused_unopened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "sprung",)

    path = tmp_path / "vgg.pth"
    path.write_bytes(pickle.dumps(Trap(), protocol=2))
    refused(VGGUNet(width=WIDTH), path, r"vgg\.pth: not a file of weights")
    torch.save({"features.0.weight": Trap()}, path)
    refused(VGGUNet(width=WIDTH), path, r"vgg\.pth: not a file of weights")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"state_dict": {"features.0.weight": torch.zeros(1)}}])
def test_file_without_tensors_by_name_is_refused(content: object, written: Callable[..., Path]) -> None:
    refused(VGGUNet(width=WIDTH), written(content), "expected tensors by name")  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_missing_and_damaged_files_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"vgg{suffix}"
    refused(VGGUNet(width=WIDTH), path, "no such file of weights")
    path.write_bytes(b"")
    refused(VGGUNet(width=WIDTH), path, "not a file of weights")
    path.write_bytes(b"not weights at all")
    refused(VGGUNet(width=WIDTH), path, "not a file of weights")
