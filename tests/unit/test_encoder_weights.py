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
from karyon.models.encoder_weights import load_encoder
from karyon.models.fcn8s import FCN8s
from karyon.models.registry import build
from karyon.models.vgg_unet import VGGUNet

# torchvision's configurations: filters in units of the width, "M" a pooling.
LAYOUTS = {
    "vgg11": [1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8, "M"],
    "vgg16": [1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, "M", 8, 8, 8, "M"],
}
WIDTH = 2


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
    refused(network, written(vgg("vgg16").state_dict()), r"not the VGG of this network.*features\.\d+.* more")


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
def test_network_without_a_vgg_encoder_is_refused(name: str, written: Callable[..., Path]) -> None:
    network = build(name, width=WIDTH)
    refused(network, written(vgg("vgg16").state_dict()), "no ImageNet encoder; vgg_unet and fcn8s")


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
