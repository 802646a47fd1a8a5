"""ImageNet weights for the networks whose encoder is VGG, from a file in torchvision's layout."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from karyon.errors import KaryonError
from karyon.models.network import Network

SHOWN = 4


def load_encoder(network: nn.Module, path: Path) -> None:
    """Load a VGG state dict of torchvision into a network's encoder, in place.

    A first convolution for other than three channels is adapted: each input channel gets the sum of the
    weights over the colours, divided by the number of input channels. So an image whose channels are all
    equal gives what a grey picture gives the original. (ImageNet weights expect channels of mean 0 and
    standard deviation 1.)

    Args:
        network: ``vgg_unet`` (weights of ``vgg11``) or ``fcn8s`` (``vgg16``), of any ``in_channels``;
            torchvision's files fit the default width, 64.
        path: ``.safetensors``, or a ``.pth`` that holds nothing but tensors. Layers of the classifier that
            the network does not have are passed over.

    Raises:
        KaryonError: The network has no such encoder; the file cannot be read; layers are missing, unknown
            or of another size. The network is then as it was.
    """
    layers = network.imagenet_layers() if isinstance(network, Network) else {}
    if not layers:
        raise KaryonError(
            f"{path}: {type(network).__name__} has no ImageNet encoder; vgg_unet and fcn8s have one"
        )
    weights = _read(path)
    _check_names(path, set(weights), layers)
    fitted = {
        name: _fit(path, name, weights[f"{name}.weight"], weights[f"{name}.bias"], layer)
        for name, layer in layers.items()
    }
    with torch.no_grad():
        for name, (weight, bias) in fitted.items():
            layers[name].weight.copy_(weight)
            layers[name].bias.copy_(bias)  # type: ignore[union-attr]


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


def _check_names(path: Path, names: set[str], layers: dict[str, nn.Conv2d]) -> None:
    wanted = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    missing = sorted(wanted - names)
    unknown = sorted(name for name in names - wanted if not name.startswith("classifier."))
    if missing or unknown:
        raise KaryonError(
            f"{path}: not the VGG of this network; missing: {_listed(missing)}; unknown: {_listed(unknown)}"
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more


def _fit(
    path: Path, name: str, weight: torch.Tensor, bias: torch.Tensor, layer: nn.Conv2d
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights in the shape of a layer: fully connected as a convolution, three colours as other channels."""
    shape = layer.weight.shape
    if weight.ndim == 2 and weight.shape == (shape[0], shape[1:].numel()):
        weight = weight.reshape(shape)
    if name == "features.0" and weight.ndim == 4 and weight.shape[1] == 3 != shape[1]:
        weight = (weight.sum(dim=1, keepdim=True) / shape[1]).expand(-1, shape[1], -1, -1)
    if weight.shape != shape or bias.shape != shape[:1]:
        raise KaryonError(
            f"{path}: {name}.weight has the shape {tuple(weight.shape)}, the network's layer {tuple(shape)}; "
            "build the network with the width of the file (torchvision's: 64)"
        )
    return weight, bias
