"""A model folder: what is written is read, and what was tampered with is refused."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from karyon.errors import KaryonError
from karyon.models.card import (
    Decoding,
    ModelCard,
    check_weights,
    file_sha256,
    model_folder,
    read_card,
    shipped_models,
)
from karyon.models.folding import fold_batch_norm
from karyon.models.registry import build, halo_and_stride
from karyon.models.weights import load_model, save_model

CARD = ModelCard(
    name="tiny",
    architecture="unet",
    arguments={"width": 2, "depth": 2},
    input="CN-H&E",
    mpp=0.5,
    halo_px=10,
    stride=2,
    output="probability",
    decoding=Decoding("components", 0.35, min_area_um2=1.5),
    target_stain={"stain_matrix": [[0.6, 0.1], [0.7, 0.9], [0.3, 0.2]], "p99": [1.5, 1.1]},
    training={"seed": 3, "images": ["a", "b"]},
    metrics={"validation": {"f1": 0.81}},
    licence="CC BY 4.0, München",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved model with random weights."""
    torch.manual_seed(5)
    save_model(tmp_path / "tiny", build("unet", width=2, depth=2), CARD)
    return tmp_path / "tiny"


def edit_card(folder: Path, **changes: object) -> None:
    content = yaml.safe_load((folder / "card.yaml").read_text(encoding="utf-8"))
    (folder / "card.yaml").write_text(yaml.safe_dump({**content, **changes}), encoding="utf-8")


def test_card_and_weights_survive_the_round_trip(tmp_path: Path) -> None:
    network = build("unet", width=2, depth=2)
    with torch.no_grad():
        for value in network.buffers():
            value.add_(3)
    saved = save_model(tmp_path, network, CARD)
    loaded, card = load_model(tmp_path)
    assert card == saved == replace(CARD, sha256=file_sha256(tmp_path / "model.safetensors"))
    assert not loaded.training
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_changed_weights_are_refused_by_their_sum(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(KaryonError, match=r"model\.safetensors: sha256 is .*restore the file"):
        load_model(folder)


def test_pickle_that_poses_as_weights_is_refused_unopened(folder: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "sprung",)

    weights = folder / "model.safetensors"
    for content in (pickle.dumps({"head.bias": Trap()}), b"PK\x03\x04" + b"\0" * 64, b""):
        weights.write_bytes(content)
        edit_card(folder, sha256=file_sha256(weights))
        with pytest.raises(KaryonError, match="not the weights of unet"):
            load_model(folder)
    assert not (tmp_path / "sprung").exists()


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    edit_card(folder, arguments={"width": 4, "depth": 2})
    with pytest.raises(KaryonError, match=r"not the weights of unet .*'width': 4"):
        load_model(folder)


def test_argument_the_architecture_does_not_have_is_refused(folder: Path) -> None:
    edit_card(folder, arguments={"breadth": 4})
    with pytest.raises(KaryonError, match="breadth"):
        load_model(folder)


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(KaryonError, match=r"model\.safetensors: the card is there but the weights are not"):
        load_model(folder)


def test_unknown_architecture_lists_the_known(folder: Path) -> None:
    edit_card(folder, architecture="resnet")
    with pytest.raises(KaryonError, match=r"unknown architecture 'resnet'; known: .*unet"):
        load_model(folder)


@pytest.mark.parametrize(
    "text",
    ["name: tiny\n", "", "- a\n- b\n", "name: [\n", "name: tiny\ndecoding: 3\n"],
    ids=["fields missing", "empty", "a list", "no yaml", "decoding is a number"],
)
def test_file_that_is_no_card_is_refused(folder: Path, text: str) -> None:
    (folder / "card.yaml").write_text(text)
    with pytest.raises(KaryonError, match=r"card\.yaml: not a model card"):
        read_card(folder)


def test_unknown_field_is_named(folder: Path) -> None:
    edit_card(folder, colour="blue")
    with pytest.raises(KaryonError, match=r"card\.yaml: not a model card.*colour"):
        read_card(folder)
    edit_card(folder, decoding={"method": "components", "threshold": 0.3, "colour": "blue"})
    with pytest.raises(KaryonError, match=r"card\.yaml: not a model card.*colour"):
        read_card(folder)


def test_output_of_a_regression_is_divided_by_its_peak_and_its_weights_are_not(tmp_path: Path) -> None:
    network = build("unet", width=2, depth=2).eval()
    image = torch.rand(1, 1, 8, 8)
    save_model(tmp_path, network, replace(CARD, output="value", peak=5.0))
    loaded, _ = load_model(tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(image), network(image) / 5)
        # Folding batch norm, as inference does, keeps the division.
        torch.testing.assert_close(fold_batch_norm(loaded)(image), network(image) / 5)
    assert torch.equal(loaded.state_dict()["head.weight"], network.state_dict()["head.weight"])


def test_input_that_nothing_prepares_is_refused(folder: Path) -> None:
    edit_card(folder, input="H")
    with pytest.raises(
        KaryonError, match=r"card\.yaml: input is 'H'; expected one of H-C, HE-C, CN-H&E, RGB"
    ):
        read_card(folder)
    edit_card(folder, input="CN-H&E", target_stain=None)
    with pytest.raises(KaryonError, match=r"card\.yaml: the input CN-H&E needs target_stain"):
        read_card(folder)


def test_what_a_map_depends_on_is_in_its_fingerprint() -> None:
    for changes in ({"peak": 5.0}, {"input": "RGB"}, {"sha256": "0"}, {"mpp": 0.25}, {"output": "value"}):
        assert replace(CARD, **changes).inference() != CARD.inference(), changes
    assert replace(CARD, metrics={}, decoding=Decoding("peaks", 0.1)).inference() == CARD.inference()


def test_shipped_models_load_with_the_sum_in_their_cards() -> None:
    folders = shipped_models()
    assert "switch_unet" in [folder.name for folder in folders]
    for folder in folders:
        network, card = load_model(folder)
        assert (card.name, card.halo_px, card.stride) == (folder.name, *halo_and_stride(network))


def test_missing_model_lists_those_there_are() -> None:
    with pytest.raises(KaryonError, match=r"model 'no_such_model': .*one of: .*switch_unet"):
        model_folder("no_such_model")


def test_model_is_found_by_path(folder: Path) -> None:
    assert model_folder(str(folder)) == folder


def test_folder_without_a_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(KaryonError, match=re.escape(str(tmp_path / "gone" / "card.yaml"))):
        read_card(tmp_path / "gone")


def test_weights_are_checked_without_building_the_network(folder: Path) -> None:
    card = read_card(folder)
    assert check_weights(folder, card) == folder / "model.safetensors"
    with pytest.raises(KaryonError, match=r"sha256 is .*restore the file"):
        check_weights(folder, replace(card, sha256="0" * 64))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(KaryonError, match="not the weights of unet"):
        check_weights(folder, replace(card, sha256=file_sha256(weights)))


@pytest.mark.parametrize(
    ("maps", "method", "said"),
    [
        (["nucleus", "distance"], "watershed", "the network gives 1"),
        (["nucleus"], "watershed", "watershed needs a map distance; maps are nucleus"),
        (["nucleus"], "dilation", "dilation needs a map inside"),
        (["inside:tumour"], "components", "components needs a map centre"),
        (["centre"], "peak", "the decoding is 'peak'; expected one of components, peaks, dilation"),
    ],
)
def test_maps_that_the_network_does_not_give_or_the_decoding_lacks_are_told(
    folder: Path, maps: list[str], method: str, said: str
) -> None:
    edit_card(folder, maps=maps, decoding={"method": method, "threshold": 0.5})
    with pytest.raises(KaryonError, match=said):
        read_card(folder)
