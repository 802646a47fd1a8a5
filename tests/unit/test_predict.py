"""Prediction over tiles: order, memory, and that tiles do not show."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from karyon.inference.predict import Predictor, input_layer
from karyon.inference.reader import read_tiles
from karyon.io.slides import Slide, SlideFacts
from karyon.models.card import Decoding, ModelCard
from karyon.models.unet import UNet
from karyon.stain.concentrations import concentrations
from karyon.stain.fit import StainFit, reference_matrix
from karyon.tiles.assembly import assemble
from karyon.tiles.grid import Grid
from karyon.tiles.layout import TileLayout

CPU = torch.device("cpu")
FIT = StainFit(
    stain="HE",
    columns=("hematoxylin", "eosin"),
    stain_matrix=reference_matrix("HE"),
    p99=np.array([1.4, 0.9]),
    i0=np.array([245.0, 243.0, 240.0]),
    source="fit",
    reason="",
    residual=0.0,
    angle=50.0,
    pixels=1000,
)


class Red(nn.Module):
    """Input layer: the red channel, 0 to 1."""

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        return rgb[..., 0][:, None].float() / 255


class Limited(nn.Module):
    """The identity, on a device that holds only so many tiles."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.batches: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.limit:
            raise torch.OutOfMemoryError(f"{len(x)} tiles")
        self.batches.append(len(x))
        return x


class Pixels(Slide):
    """A slide in memory."""

    def __init__(self, pixels: np.ndarray, mpp: float) -> None:
        self.pixels = pixels
        height, width = pixels.shape[:2]
        self.facts = SlideFacts(width, height, mpp, "sheet", ((width, height),), 0, 0, "image")

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        assert level == 0
        assert x >= 0
        assert y >= 0
        return self.pixels[y : y + height, x : x + width]


def numbered_tiles(count: int) -> list[np.ndarray]:
    return [np.full((4, 6, 3), number, np.uint8) for number in range(count)]


def random_unet(width: int = 4, depth: int = 3) -> UNet:
    """Weights and statistics random, and logits over the whole range of the sigmoid."""
    torch.manual_seed(2)
    network = UNet(width=width, depth=depth).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.05, 0.2)
        logits = network(torch.rand(4, 1, 64, 64))
        factor = 2.0 / logits.std()
        network.head.bias.copy_((network.head.bias - logits.mean()) * factor)
        network.head.weight.mul_(factor)
    return network


@pytest.mark.parametrize("batch_size", [1, 3, 8, 50])
def test_tiles_come_out_in_order(batch_size: int) -> None:
    tiles = numbered_tiles(20)
    maps = list(Predictor(Limited(99), "value", CPU, batch_size).predict(iter(tiles), Red()))
    for found, tile in zip(maps, tiles, strict=True):
        np.testing.assert_array_equal(found, tile[..., 0])


def test_batch_halves_for_good_when_memory_runs_out() -> None:
    network = Limited(3)
    predictor = Predictor(network, "value", CPU, batch_size=16)
    maps = list(predictor.predict(iter(numbered_tiles(37)), Red()))
    assert [int(values[0, 0]) for values in maps] == list(range(37))
    # 16 do not fit, nor 8, nor 4.
    assert predictor.batch_size <= 3
    assert max(network.batches) <= 3
    assert sum(network.batches) == 37


def test_single_tile_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        list(Predictor(Limited(0), "value", CPU, 4).predict(iter(numbered_tiles(3)), Red()))


def test_no_more_tiles_are_drawn_than_a_batch() -> None:
    drawn = []

    def source() -> Iterator[np.ndarray]:
        for number, tile in enumerate(numbered_tiles(20)):
            drawn.append(number)
            yield tile

    next(Predictor(Limited(99), "value", CPU, 4).predict(source(), Red()))
    assert len(drawn) == 4


@pytest.mark.parametrize(
    ("output", "expected"),
    # sigmoid(0) = 0.5 and sigmoid(1) = 0.7311, times 255.
    [("probability", [128, 186]), ("value", [0, 255])],
)
def test_outputs_are_scaled_to_bytes(output: str, expected: list[int]) -> None:
    tiles = [np.full((2, 2, 3), value, np.uint8) for value in (0, 255)]
    maps = list(Predictor(Limited(9), output, CPU, 2).predict(iter(tiles), Red()))
    assert [int(values[0, 0]) for values in maps] == expected


class Three(nn.Module):
    """Three logits from one channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, 2 * x, 0 * x], dim=1)


def test_several_maps_are_scaled_each_or_by_softmax() -> None:
    tile = np.full((2, 2, 3), 255, np.uint8)  # logits 1, 2 and 0
    for output, expected in {
        "probability": [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-2)), 0.5],
        "softmax": np.exp([1, 2, 0]) / np.exp([1, 2, 0]).sum(),
    }.items():
        for threads in (0, 2):
            (found,) = Predictor(Three(), output, CPU, 2, threads).predict(iter([tile]), Red())
            assert found.shape == (3, 2, 2)
            assert found[:, 1, 0].tolist() == np.rint(255 * np.array(expected)).tolist()


def test_batches_equal_the_network_applied_tile_by_tile() -> None:
    network = random_unet()
    tiles = list(np.random.default_rng(1).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8))
    maps = np.stack(list(Predictor(network, "probability", CPU, 4).predict(iter(tiles), Red())))
    with torch.inference_mode():
        expected = [
            torch.sigmoid(network(Red()(torch.from_numpy(tile)[None])))[0, 0].numpy() for tile in tiles
        ]
    assert np.abs(maps - 255 * np.stack(expected)).max() <= 0.501
    assert maps.std() > 20


def test_input_layers_are_those_of_the_card() -> None:
    card = ModelCard("m", "unet", {}, "H-C", 0.5, 8, 2, "probability", Decoding("components", 0.5))
    rgb = np.random.default_rng(3).integers(60, 256, (1, 5, 6, 3), dtype=np.uint8)
    expected = concentrations(rgb, FIT.stain_matrix, FIT.i0)[0] / FIT.p99
    for column, stain in enumerate(FIT.columns):
        prepared = input_layer(card, FIT, stain)(torch.from_numpy(rgb)).numpy()
        np.testing.assert_allclose(prepared[0, 0], expected[..., column], atol=1e-4)
    target = {"stain_matrix": reference_matrix("IHC").tolist(), "p99": [2.0, 1.0]}
    colour = ModelCard(**{**card.__dict__, "input": "CN-H&E", "target_stain": target})
    normalised = np.exp(-(expected * np.array([2.0, 1.0])) @ reference_matrix("IHC").T)
    prepared = input_layer(colour, FIT, "hematoxylin")(torch.from_numpy(rgb)).numpy()
    np.testing.assert_allclose(prepared[0].transpose(1, 2, 0), normalised, atol=1e-4)
    both = ModelCard(**{**card.__dict__, "input": "HE-C"})
    for stain, order in zip(FIT.columns, ([0, 1], [1, 0]), strict=True):
        prepared = input_layer(both, FIT, stain)(torch.from_numpy(rgb)).numpy()
        np.testing.assert_allclose(prepared[0].transpose(1, 2, 0), expected[..., order], atol=1e-4)
    plain = ModelCard(**{**card.__dict__, "input": "RGB"})
    prepared = input_layer(plain, FIT, "dab")(torch.from_numpy(rgb)).numpy()
    np.testing.assert_allclose(prepared[0].transpose(1, 2, 0), 1 - rgb[0] / 255, atol=1e-6)


def test_stain_the_slide_does_not_carry_is_refused() -> None:
    card = ModelCard("m", "unet", {}, "H-C", 0.5, 8, 2, "probability", Decoding("components", 0.5))
    with pytest.raises(ValueError, match="stained with hematoxylin and eosin, not dab"):
        input_layer(card, FIT, "dab")


def slide_map(slide: Slide, network: UNet, core: int, batch_size: int) -> np.ndarray:
    """The whole slide's map by tiles of ``core`` model pixels, as the workflow makes it."""
    grid = Grid.of_slide(slide.facts, 0.5)
    layout = TileLayout.of_grid(grid, core, network.reach, network.stride)
    tiles = np.array([(row, column) for row in range(layout.rows) for column in range(layout.columns)])
    images = (image for image, _ in read_tiles(lambda: slide, grid, layout, tiles, threads=2, ahead=4))
    card = ModelCard("m", "unet", {}, "H-C", 0.5, 8, 2, "probability", Decoding("components", 0.5))
    maps = Predictor(network, "probability", CPU, batch_size).predict(
        images, input_layer(card, FIT, "hematoxylin")
    )
    whole = np.zeros((grid.height, grid.width), np.uint8)
    for rows, columns, block in assemble(np.stack(list(maps)), tiles, layout, grid, "halo"):
        whole[rows, columns] = block
    return whole


@pytest.mark.parametrize("mpp", [0.5, 0.25, 0.2465, 0.3, 0.9])
def test_tile_size_does_not_show_in_the_map(mpp: float) -> None:
    noise = np.random.default_rng(6).random((381, 437, 3))
    smooth = ndimage.gaussian_filter(noise, (2.5, 2.5, 0))
    pixels = np.clip(170 + (smooth - smooth.mean()) / smooth.std() * 40, 0, 255).astype(np.uint8)
    slide, network = Pixels(pixels, mpp), random_unet()
    maps = [
        slide_map(slide, network, core, batch_size).astype(int)
        for core, batch_size in ((64, 5), (96, 3), (160, 1))
    ]
    assert maps[0].std() > 20
    for other in maps[1:]:
        difference = np.abs(other - maps[0])
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3
