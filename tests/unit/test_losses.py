"""Losses against values worked by hand, their laws, and their gradients against finite differences."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from karyon.training.losses import (
    LOSSES,
    bce_dice_inverted_loss,
    bce_dice_loss,
    bce_loss,
    dice_loss,
    focal_loss,
    inverted_dice_loss,
    nucleus_distance_loss,
    patch_weighted_loss,
    switching_loss,
    weighted_mse_loss,
)

# Two pixels: one of the foreground found with 0.8, one of the background with 0.4.
X = torch.logit(torch.tensor([[0.8, 0.4]], dtype=torch.float64))
G = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
# ln 0.8 = -0.2231436, ln 0.6 = -0.5108256; half of their sum.
CROSS_ENTROPY = 0.3669846
DICE = 0.1875  # 1 - (2 * 0.8 + 1) / (1.2 + 1 + 1) = 1 - 2.6 / 3.2
INVERTED = 3 / 14  # 1 - (2 * 0.6 + 1) / (0.8 + 1 + 1) = 1 - 2.2 / 2.8

# How many maps a loss is of, where it is not one.
MAPS = {"nucleus_distance": 2, "patch_weighted": 3}
# JOINT's has a target of one map more, and tests of its own.
HERE = [name for name in LOSSES if name != "joint"]
ON_LOGITS = sorted(set(HERE) - {"weighted_mse"})
# These cost the same after nuclei and background have changed places.
EVEN_HANDED = ["bce", "bce_dice_inverted", "focal"]


def random_batch(
    seed: int = 0, images: int = 2, side: int = 4, name: str = "bce"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and a binary truth a third of it foreground, float64, ``(images, maps, side, side)``.

    Of the three classes of ``patch_weighted`` one is true at each pixel.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (images, MAPS.get(name, 1), side, side)
    logits = 2 * torch.randn(shape, dtype=torch.float64, generator=generator)
    chance = torch.rand(shape, generator=generator)
    truth = chance == chance.amax(dim=1, keepdim=True) if name == "patch_weighted" else chance > 0.65
    return logits, truth.double()


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (bce_loss, CROSS_ENTROPY),
        (dice_loss, DICE),
        (inverted_dice_loss, INVERTED),
        (bce_dice_loss, CROSS_ENTROPY + DICE),
        (bce_dice_inverted_loss, CROSS_ENTROPY + (DICE + INVERTED) / 2),
        # (0.2 * 0.2231436 + 0.4 * 0.5108256) / 2 and (0.00032 * 0.2231436 + 0.01024 * 0.5108256) / 2
        (partial(focal_loss, gamma=1.0), 0.1244795),
        (focal_loss, 0.00265113),
    ],
)
def test_loss_of_two_pixels(loss: Callable[..., torch.Tensor], expected: float) -> None:
    assert float(loss(X, G)) == pytest.approx(expected, rel=1e-5)


def test_soft_truth_of_a_half() -> None:
    # p = g = 1/2: ln 2 = 0.6931472, and with gamma 2 a quarter of it.
    x, g = torch.zeros(1, 3), torch.full((1, 3), 0.5)
    assert float(bce_loss(x, g)) == pytest.approx(0.6931472)
    assert float(focal_loss(x, g, gamma=2.0)) == pytest.approx(0.1732868)


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    logits, g = random_batch()
    assert float(focal_loss(logits, g, gamma=0.0)) == pytest.approx(float(bce_loss(logits, g)))


def test_batch_without_foreground_is_defined() -> None:
    # (0 + 1) / (0.8 + 0.4 + 0 + 1)
    assert float(dice_loss(X, torch.zeros_like(G))) == pytest.approx(1 - 1 / 2.2)


def test_dice_pools_the_mini_batch() -> None:
    # Image by image and then averaged it would be (1 - 1 / 1.4 + 1 - 2.6 / 2.8) / 2.
    assert float(dice_loss(X.T.flip(0), G.T.flip(0))) == pytest.approx(DICE)


@pytest.mark.parametrize(
    ("form", "tau", "on_dice"),
    [
        # Half of the pixels are foreground: more than a tau of 0.2, not more than one of 0.5.
        ("printed", 0.2, 0.8),
        ("printed", 0.5, 0.2),
        ("rare_class", 0.2, 0.2),
        ("rare_class", 0.5, 0.8),
    ],
)
def test_emphasis_switches_with_the_foreground_share(form: str, tau: float, on_dice: float) -> None:
    loss = switching_loss(X, G, weight=0.8, tau=tau, form=form)
    assert float(loss) == pytest.approx(CROSS_ENTROPY + on_dice * DICE + (1 - on_dice) * INVERTED)


def test_share_is_that_of_the_mini_batch() -> None:
    # The second image is all foreground, the other three have none: 1/4 of the batch, above a tau of 0.2.
    g = torch.zeros(4, 1, 2, 2, dtype=torch.float64)
    g[1] = 1
    logits = random_batch(images=4, side=2)[0]
    expected = bce_loss(logits, g) + 0.2 * dice_loss(logits, g) + 0.8 * inverted_dice_loss(logits, g)
    assert float(switching_loss(logits, g)) == pytest.approx(float(expected))


def test_default_emphasises_dice_where_nuclei_are_rare() -> None:
    x = torch.logit(torch.tensor([[0.8, 0.4, 0.4, 0.4, 0.4, 0.4]], dtype=torch.float64))
    g = torch.tensor([[1.0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    dice, inverted = 1 - 2.6 / (2.8 + 2), 1 - 7 / (3.2 + 5 + 1)
    cross_entropy = (0.2231436 + 5 * 0.5108256) / 6
    assert float(switching_loss(x, g)) == pytest.approx(cross_entropy + 0.8 * dice + 0.2 * inverted)


def test_switching_loss_of_equal_weights_does_not_switch() -> None:
    logits, g = random_batch()
    for tau in (0.0, 1.0):
        loss = switching_loss(logits, g, weight=0.5, tau=tau)
        assert float(loss) == pytest.approx(float(bce_dice_inverted_loss(logits, g)))


# Mean 1 and 1/2, so the weights are 5, 6, 5, 8 and 4.5, 2.5, 2.5, 2.5; the squared errors 1, 0, 4, 4 and
# 4, 0, 0, 4: 57 / 8 = 7.125 and 28 / 8 = 3.5.
Y = torch.tensor([[[0.0, 1.0], [0.0, 3.0]], [[2.0, 0.0], [0.0, 0.0]]])
O = torch.tensor([[[1.0, 1.0], [2.0, 1.0]], [[0.0, 0.0], [0.0, 2.0]]])  # noqa: E741


def test_weighted_error_of_an_image() -> None:
    assert float(weighted_mse_loss(O[:1], Y[:1])) == pytest.approx(7.125)
    assert float(weighted_mse_loss(O[1:], Y[1:])) == pytest.approx(3.5)
    assert float(weighted_mse_loss(O[:1], Y[:1], mean_weight=0.0)) == pytest.approx(3 * 4 / 8)


def test_weighted_error_of_a_batch_is_the_mean_over_its_images() -> None:
    assert float(weighted_mse_loss(O, Y)) == pytest.approx((7.125 + 3.5) / 2)


def test_derivative_of_the_weighted_error() -> None:
    # (y + lambda ybar) (o - y) / pixels (MICRONET, eq. 3 without the sigmoid).
    outputs = O[:1].clone().requires_grad_()
    weighted_mse_loss(outputs, Y[:1]).backward()
    assert outputs.grad is not None
    assert (4 * outputs.grad).flatten().tolist() == pytest.approx([5, 0, 10, -16])


def test_image_without_nuclei_costs_nothing_and_teaches_nothing() -> None:
    outputs = torch.full((1, 1, 3, 3), 7.0, requires_grad=True)
    loss = weighted_mse_loss(outputs, torch.zeros(1, 1, 3, 3))
    loss.backward()
    assert loss.item() == 0
    assert outputs.grad is not None
    assert not outputs.grad.any()


def test_scale_of_the_map_enters_the_weighted_error_by_its_cube() -> None:
    assert float(weighted_mse_loss(5 * O, 5 * Y)) == pytest.approx(125 * float(weighted_mse_loss(O, Y)))


def test_nucleus_and_distance_of_two_pixels() -> None:
    # Of the distance, whose truth is 0.5 and 0.25: -(0.5 ln 0.8 + 0.5 ln 0.2 + 0.25 ln 0.4 + 0.75 ln 0.6) / 2
    truth = torch.stack([G[0], torch.tensor([0.5, 0.25])])[None, :, None]
    loss = nucleus_distance_loss(X.expand(1, 2, 1, 2), truth)
    assert float(loss) == pytest.approx(CROSS_ENTROPY + DICE + 0.7642413, rel=1e-6)


def test_middle_of_a_crop_counts_most() -> None:
    # D_e is 1.5 in the middle and else 0.5, D_c 0, 1 and the root of 2: the weights are 1, four times 1 / 3
    # and four times 0.5 / 1.9142136, together 3.3781490. A pixel of even odds costs ln 2, the others nothing.
    truth = torch.zeros(1, 2, 3, 3, dtype=torch.float64)
    truth[:, 0] = 1
    for place, weight in {(1, 1): 1.0, (0, 1): 1 / 3, (2, 2): 0.5 / 1.9142136}.items():
        logits = 200 * (2 * truth - 1)
        logits[:, :, *place] = 0
        loss = float(patch_weighted_loss(logits, truth))
        assert loss == pytest.approx(0.6931472 * weight / 3.3781490, rel=1e-6)
    assert float(patch_weighted_loss(torch.zeros(1, 2, 3, 3), truth)) == pytest.approx(0.6931472)


@pytest.mark.parametrize("name", ON_LOGITS)
def test_perfect_prediction_costs_nothing(name: str) -> None:
    g = random_batch(name=name)[1].float()
    assert float(LOSSES[name]((2 * g - 1) * 200, g)) == 0


def test_perfect_map_costs_nothing() -> None:
    assert float(weighted_mse_loss(Y, Y)) == 0


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), pixel=st.integers(0, 31), step=st.floats(0.01, 5))
@pytest.mark.parametrize("name", ON_LOGITS)
def test_pixel_nearer_to_its_truth_never_costs_more(name: str, seed: int, pixel: int, step: float) -> None:
    logits, g = random_batch(seed, name=name)
    better = logits.clone().flatten()
    better[pixel] += step * (2 * g.flatten()[pixel] - 1)
    assert float(LOSSES[name](better.reshape(logits.shape), g)) <= float(LOSSES[name](logits, g)) + 1e-12


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_exchanging_the_classes(seed: int) -> None:
    logits, g = random_batch(seed)
    for name in EVEN_HANDED:
        assert float(LOSSES[name](logits, g)) == pytest.approx(float(LOSSES[name](-logits, 1 - g)))
    assert float(inverted_dice_loss(logits, g)) == pytest.approx(float(dice_loss(-logits, 1 - g)))
    if g.mean() != 0.5:
        one, other = (switching_loss(*pair, tau=0.5) for pair in ((logits, g), (-logits, 1 - g)))
        assert float(one) == pytest.approx(float(other))


@pytest.mark.parametrize("name", HERE)
def test_order_of_images_and_of_pixels_does_not_matter(name: str) -> None:
    outputs, target = random_batch(images=3, name=name)
    turned = outputs.flip(0, 2).transpose(2, 3), target.flip(0, 2).transpose(2, 3)
    assert float(LOSSES[name](*turned)) == pytest.approx(float(LOSSES[name](outputs, target)), rel=1e-12)


@pytest.mark.parametrize("name", HERE)
def test_extreme_outputs_give_finite_losses_and_gradients(name: str) -> None:
    maps = MAPS.get(name, 1)
    outputs = torch.tensor([-1e4, 1e4, -1e4, 1e4]).tile(maps).reshape(1, maps, 2, 2).requires_grad_()
    loss = LOSSES[name](outputs, torch.tensor([0.0, 1.0, 1.0, 0.0]).tile(maps).reshape(1, maps, 2, 2))
    loss.backward()
    assert torch.isfinite(loss)
    assert outputs.grad is not None
    assert torch.isfinite(outputs.grad).all()


def test_wrong_pixel_of_extreme_logit_costs_its_logit() -> None:
    logits, g = torch.tensor([[-200.0, 200.0]]), torch.tensor([[1.0, 0.0]])
    assert float(focal_loss(logits, g)) == pytest.approx(200)
    # Both kinds of Dice are 1 - 1 / 3.
    assert float(switching_loss(logits, g)) == pytest.approx(200 + 1 - 1 / 3, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 5.0])
def test_focal_gradient_of_a_certain_pixel_is_finite(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    focal_loss(logits, torch.tensor([[1.0, 0.0]]), gamma).backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("name", HERE)
def test_outputs_in_half_precision_are_taken_at_their_value(name: str) -> None:
    # 4,225 pixels: sums in bfloat16, of 8 bits, would be off by percents.
    outputs, target = random_batch(images=1, side=65, name=name)
    half = outputs.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSSES[name](half, target.float())
    loss.backward()
    assert loss.dtype == torch.float32
    expected = LOSSES[name](half.detach().double(), target)
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, {}) for name in HERE),
        ("focal", {"gamma": 0.5}),
        *(
            ("switching", {"form": form, "tau": tau})
            for form in ("printed", "rare_class")
            for tau in (0.05, 0.95)
        ),
        ("weighted_mse", {"mean_weight": 0.0}),
    ],
)
def test_gradients_equal_finite_differences(name: str, arguments: dict) -> None:
    outputs, target = random_batch(name=name)
    assert torch.autograd.gradcheck(
        lambda values: LOSSES[name](values, target, **arguments), (outputs.requires_grad_(),)
    )


@pytest.mark.parametrize("name", HERE)
def test_shapes_that_would_broadcast_are_refused(name: str) -> None:
    outputs = torch.zeros(2, MAPS.get(name, 1), 4, 4)
    with pytest.raises(ValueError, match=re.escape(f"{tuple(outputs.shape)}, the target (2, 4, 4)")):
        LOSSES[name](outputs, torch.zeros(2, 4, 4))


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (nucleus_distance_loss, (2, 1, 4, 4)),
        (nucleus_distance_loss, (2, 3, 4, 4)),
        (patch_weighted_loss, (2, 1, 4, 4)),
        (patch_weighted_loss, (2, 3, 4, 5)),
    ],
)
def test_maps_that_a_loss_is_not_of_are_refused(
    loss: Callable[..., torch.Tensor], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"outputs have shape {shape}; expected")):
        loss(torch.zeros(shape), torch.zeros(shape))


@pytest.mark.parametrize(
    ("loss", "arguments", "message"),
    [
        (switching_loss, {"form": "rare"}, "form is 'rare'; expected one of printed, rare_class"),
        (switching_loss, {"weight": 80}, "weight is 80; expected 0 to 1"),
        (switching_loss, {"tau": -0.1}, "tau is -0.1; expected 0 to 1"),
        (focal_loss, {"gamma": -1}, "gamma is -1; expected 0 or more"),
        (weighted_mse_loss, {"mean_weight": -5}, "mean_weight is -5; expected 0 or more"),
    ],
)
def test_argument_out_of_range_is_refused(
    loss: Callable[..., torch.Tensor], arguments: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        loss(X, G, **arguments)


def test_single_pixels_without_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"y has shape \(3,\)"):
        weighted_mse_loss(torch.zeros(3), torch.zeros(3))
