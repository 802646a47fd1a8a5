"""What training starts from: fine-tuning, frozen blocks, encoders from a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_training_loop import EXPERIMENT, checkpoint_of, run
from torch import nn

from karyon.errors import KaryonError
from karyon.models.card import Decoding, ModelCard
from karyon.models.registry import blocks, build
from karyon.models.weights import load_model, save_model
from karyon.training.experiment import Experiment, Start
from karyon.training.start import starting_point


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a model that the experiment can start from."""
    return saved(tmp_path / "base", "micronet", {"in_channels": 1, "width": 2})


def saved(folder: Path, architecture: str, arguments: dict[str, int]) -> Path:
    """A model with random weights and statistics."""
    torch.manual_seed(11)
    network = build(architecture, **arguments)
    with torch.no_grad():
        for name, value in network.named_buffers():
            if "running" in name:
                value.copy_(1 + torch.rand_like(value))
    card = ModelCard(
        name=folder.name,
        architecture=architecture,
        arguments=arguments,
        input="H-C",
        mpp=0.5,
        halo_px=128,
        stride=16,
        output="probability",
        decoding=Decoding("components", 0.35),
    )
    save_model(folder, network, card)
    return folder


def finetuning(model: Path, freeze: int) -> Experiment:
    return replace(
        EXPERIMENT, start=Start(str(model), freeze), steps=4, validate_every=4, patience=0, ema=0.5
    )


def test_frozen_blocks_keep_weights_and_statistics_to_the_last_bit(model: Path, tmp_path: Path) -> None:
    before = blocks(starting_point(finetuning(model, 3)).network)
    trained = run(finetuning(model, 3), tmp_path / "run")
    network = build("micronet", in_channels=1, width=2)
    network.load_state_dict(checkpoint_of(tmp_path / "run")["network"])
    for after in (blocks(trained), blocks(network)):
        for number, (one, other) in enumerate(zip(after, before, strict=True)):
            state = other.state_dict()
            same = [torch.equal(value, state[name]) for name, value in one.state_dict().items()]
            # Behind the third block every weight and every statistic moves.
            assert all(same) if number < 3 else not any(same), number


def test_nothing_drops_out_of_frozen_blocks(model: Path) -> None:
    # Dropout is in MicroNet's blocks 4 and 5.
    start = starting_point(finetuning(model, 4))
    start.train()
    assert [any(layer.training for layer in block.modules()) for block in blocks(start.network)] == [
        *[False] * 4,
        *[True] * 6,
    ]


def test_no_block_is_frozen_unless_asked_for(model: Path) -> None:
    start = starting_point(finetuning(model, 0))
    assert all(weight.requires_grad for weight in start.network.parameters())
    assert start.frozen == []


def test_weights_are_those_of_the_model_and_the_user_is_told(model: Path) -> None:
    start = starting_point(finetuning(model, 2))
    torch.manual_seed(11)
    expected = build("micronet", in_channels=1, width=2)
    for name, value in expected.named_parameters():
        assert torch.equal(start.network.get_parameter(name), value), name
    assert start.words == f"weights of {model}, the first 2 blocks frozen"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "frcn"}, "architecture of .* is micronet, the experiment's is frcn"),
        ({"input": "HE-C"}, "input of .* is H-C, the experiment's is HE-C"),
        ({"arguments": {"width": 4}}, "was built with .*'width': 2.* with .*'width': 4"),
        ({"arguments": {"width": 3}}, "was built with .*'width': 2.* with .*'width': 3"),
    ],
)
def test_model_of_another_kind_is_refused(model: Path, changes: dict, message: str) -> None:
    with pytest.raises(KaryonError, match=message):
        starting_point(replace(finetuning(model, 0), **changes))


@pytest.mark.parametrize(("freeze", "fits"), [(9, True), (10, False), (11, False)])
def test_a_block_must_be_left_to_train(model: Path, freeze: int, fits: bool) -> None:
    if fits:
        assert len(starting_point(finetuning(model, freeze)).frozen) == 9
        return
    with pytest.raises(KaryonError, match=f"freeze is {freeze}, but micronet has 10 blocks"):
        starting_point(finetuning(model, freeze))


def test_every_map_starts_as_the_one_of_the_model(model: Path) -> None:
    outlines = replace(
        finetuning(model, 0), target="nucleus_distance", loss="nucleus_distance", decoding="watershed"
    )
    trained, network = starting_point(finetuning(model, 0)).network, starting_point(outlines).network
    pixels = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        expected, found = trained.eval()(pixels), network.eval()(pixels)
    torch.testing.assert_close(found, expected.expand(1, 2, 32, 32))


def test_every_map_of_a_network_that_folds_starts_as_the_one_of_a_model_that_does(tmp_path: Path) -> None:
    arguments = {"width": 2, "depth": 2, "fold": 2}
    model = saved(tmp_path / "one_map", "unet", {"in_channels": 1, **arguments})
    outlines = {"target": "nucleus_distance", "loss": "nucleus_distance", "decoding": "watershed"}
    several = replace(
        EXPERIMENT, architecture="unet", arguments=arguments, start=Start(str(model)), **outlines
    )
    trained, _ = load_model(model)
    pixels = torch.rand(1, 1, 32, 48)
    with torch.inference_mode():
        expected, found = trained.eval()(pixels), starting_point(several).network.eval()(pixels)
    torch.testing.assert_close(found, expected.expand(1, 2, 32, 48))
    finer = replace(several, arguments=arguments | {"fold": 4})
    with pytest.raises(KaryonError, match=r"'fold': 2.* with .*'fold': 4"):
        starting_point(finer)


def test_a_network_that_folds_starts_as_the_model_at_its_coarser_resolution(tmp_path: Path) -> None:
    coarse = saved(tmp_path / "coarse", "unet", {"in_channels": 1, "width": 2, "depth": 2})
    arguments = {"width": 2, "depth": 2, "fold": 2}
    fine = replace(EXPERIMENT, architecture="unet", arguments=arguments, start=Start(str(coarse)))
    trained, _ = load_model(coarse)
    pixels = torch.rand(1, 1, 32, 48)
    with torch.inference_mode():
        found = starting_point(fine).network.eval()(pixels)
        means = torch.nn.functional.avg_pool2d(pixels, 2)
        expected = trained.eval()(means).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(found, expected)


def test_encoder_comes_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(3)
    # The convolutions of VGG11 in torchvision's numbering, at width 2: 64 becomes 2.
    widths = {
        0: (3, 2),
        3: (2, 4),
        6: (4, 8),
        8: (8, 8),
        11: (8, 16),
        13: (16, 16),
        16: (16, 16),
        18: (16, 16),
    }
    weights = {}
    for number, (inputs, outputs) in widths.items():
        weights[f"features.{number}.weight"] = torch.randn(outputs, inputs, 3, 3)
        weights[f"features.{number}.bias"] = torch.randn(outputs)
    save_file(weights, tmp_path / "vgg11.safetensors")
    experiment = replace(
        EXPERIMENT,
        architecture="vgg_unet",
        arguments={"width": 2},
        encoder_weights=str(tmp_path / "vgg11.safetensors"),
    )
    start = starting_point(experiment)
    encoder = [layer for layer in blocks(start.network)[1].modules() if isinstance(layer, nn.Conv2d)]
    assert torch.equal(encoder[0].weight, weights["features.3.weight"])
    assert start.frozen == []
    assert "vgg11.safetensors" in start.words


def test_without_either_the_user_is_told_that_weights_are_random() -> None:
    assert starting_point(EXPERIMENT).words == "random weights"
