"""JOINT's loss: labels of which one, several or all maps may be, and features of VGG16."""

from __future__ import annotations

from math import log
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from karyon.errors import KaryonError
from karyon.training.joint_loss import joint_loss

# torchvision's configuration D; "M" is a pooling.
VGG16 = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]
# Of its layers, relu1_2, relu2_2, relu3_3 and relu4_3.
LEVELS = (3, 8, 15, 22)


def pixels(*values: tuple[float, ...]) -> torch.Tensor:
    """Pixels in a row as maps, float64, ``(1, k, 1, pixels)``."""
    return torch.tensor(values, dtype=torch.float64).T[None, :, None]


def random_batch(maps: int = 4, side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and sets of maps with weights from 1 to 2."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, maps, side, side, dtype=torch.float64, generator=generator)
    sets = torch.rand(2, maps, side, side, generator=generator) > 0.6
    sets[:, 0] |= ~sets.any(dim=1)
    weight = 1 + torch.rand(2, 1, side, side, generator=generator)
    return logits, torch.cat([sets.double(), weight.double()], dim=1)


@pytest.fixture(scope="module")
def features() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = 3
    for entry in VGG16:
        if isinstance(entry, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU()]
            channels = entry
    return nn.Sequential(*layers).requires_grad_(False)


@pytest.fixture(scope="module")
def weights(features: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    named = {f"features.{name}": value for name, value in features.state_dict().items()}
    torch.save(named | {"classifier.6.bias": torch.zeros(1000)}, path)
    return str(path)


def test_two_pixels_worked_by_hand() -> None:
    # Probabilities 1/2, 1/4 and 1/4. The first pixel is the first map, with weight 1; the second the second
    # or third, with weight 3: (ln 2 + 3 ln 2) / 2.
    logits = pixels((log(2), 0, 0), (log(2), 0, 0))
    target = pixels((1, 0, 0, 1), (0, 1, 1, 3))
    assert float(joint_loss(logits, target)) == pytest.approx(2 * log(2))


def test_one_map_each_is_weighted_cross_entropy() -> None:
    logits, target = random_batch()
    chosen = target[:, :4].argmax(dim=1)
    target[:, :4] = functional.one_hot(chosen, 4).movedim(-1, 1)
    expected = (functional.cross_entropy(logits, chosen, reduction="none") * target[:, 4]).mean()
    assert float(joint_loss(logits, target)) == pytest.approx(float(expected), rel=1e-12)


def test_pixel_of_which_nothing_is_known_costs_and_teaches_nothing() -> None:
    logits, target = random_batch()
    target[:, :4] = 1
    loss = joint_loss(logits.requires_grad_(), target)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.abs().max() > 1e-16


def test_extreme_outputs_in_half_precision_give_finite_losses_and_gradients() -> None:
    logits = pixels((-1e4, 1e4, 0), (1e4, -1e4, 0)).bfloat16().requires_grad_()
    loss = joint_loss(logits, pixels((1, 0, 1, 1), (0, 1, 0, 1)).float())
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((1e4 + 2e4) / 2, rel=0.01)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_perceptual_term_equals_a_vgg_of_another_make(features: nn.Sequential, weights: str) -> None:
    logits, target = random_batch(side=32)
    logits = logits.float()
    probability = torch.softmax(logits, dim=1)
    possible = probability * target[:, :4]
    true = possible[:, 3:] / possible.sum(dim=1, keepdim=True)
    x, y = (contour.expand(-1, 3, -1, -1) for contour in (probability[:, 3:], true.float()))
    expected = 0.0
    for number, layer in enumerate(features[: LEVELS[-1] + 1]):
        x, y = layer(x), layer(y)
        if number in LEVELS:
            expected += float(((x - y) ** 2).mean()) / 4
    alone = float(joint_loss(logits, target))
    assert expected > 1e-6
    both = float(joint_loss(logits, target, beta=1000.0, vgg16_weights=weights))
    assert both - alone == pytest.approx(1000 * expected, rel=1e-3)
    assert float(joint_loss(logits, target, beta=0.0, vgg16_weights=weights)) == pytest.approx(alone)


def test_perceptual_term_of_a_perfect_prediction_is_nothing(weights: str) -> None:
    target = random_batch(maps=3)[1]
    target[:, :3] = functional.one_hot(target[:, :3].argmax(dim=1), 3).movedim(-1, 1)
    perfect = 200 * (2 * target[:, :3] - 1)
    assert float(joint_loss(perfect, target, beta=1.0, vgg16_weights=weights)) == 0


@pytest.mark.parametrize("perceptual", [False, True])
def test_gradients_equal_finite_differences(perceptual: bool, weights: str) -> None:
    # What is not known is taken as predicted: with every label known, all of the loss can be differenced.
    logits, target = random_batch(maps=3)
    if perceptual:
        target[:, :3] = functional.one_hot(target[:, :3].argmax(dim=1), 3).movedim(-1, 1)
    arguments = {"beta": 100.0, "vgg16_weights": weights} if perceptual else {}
    assert torch.autograd.gradcheck(
        lambda values: joint_loss(values, target, **arguments),  # type: ignore[arg-type]
        (logits.requires_grad_(),),
        fast_mode=True,
    )


def test_missing_and_wrong_files_are_named(tmp_path: Path) -> None:
    logits, target = random_batch()
    with pytest.raises(KaryonError, match=r"gone\.pth: no such file of weights"):
        joint_loss(logits, target, vgg16_weights=str(tmp_path / "gone.pth"))
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.pth")
    with pytest.raises(KaryonError, match=r"part\.pth: not the weights .*missing: features\.0\.bias"):
        joint_loss(logits, target, vgg16_weights=str(tmp_path / "part.pth"))


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 6, 8, 8), (1, 5, 8, 8), (2, 5, 8, 1)])
def test_target_without_a_weight_or_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"outputs have shape \(2, 4, 8, 8\), the target"):
        joint_loss(random_batch()[0], torch.ones(shape))


def test_negative_beta_is_refused() -> None:
    with pytest.raises(ValueError, match=r"beta is -0\.1; expected 0 or more"):
        joint_loss(*random_batch(), beta=-0.1)
