"""A model on disk: ``model.safetensors`` with the weights, ``card.yaml`` with everything else.

What reads cards is here and does without torch, whose import costs every job of a cohort more than a second;
what builds networks is in :mod:`karyon.models.weights`.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import yaml
from safetensors import SafetensorError, safe_open

from karyon.errors import KaryonError
from karyon.io.atomic import atomic_path
from karyon.io.schemas import REPOSITORY, show_value
from karyon.stain.channels import INPUT_CHANNELS

WEIGHTS, CARD = "model.safetensors", "card.yaml"
SHIPPED = REPOSITORY / "resources" / "models"
# The maps of a model that finds nuclei without their outlines.
CENTRE = ("centre",)
NEEDED_MAPS = {
    "components": {"centre"},
    "peaks": {"centre"},
    "dilation": {"inside"},
    "watershed": {"nucleus", "distance"},
}


@dataclass(frozen=True)
class Decoding:
    """How nuclei are read from the map.

    Attributes:
        method: Of centres: ``components`` (SWITCH: threshold, components, centroids) or ``peaks`` (MICRONET:
            suppression, local maxima). Of outlines: ``dilation`` (NB and JOINT: components of the insides,
            grown back) or ``watershed`` (from markers over what is nucleus).
        threshold: A probability; for ``peaks`` a share of the slide's maximum (xi).
        min_area_um2: Nuclei smaller than this are dropped.
        distance_um: ``peaks`` nearer than this to a higher one are dropped.
        dilation_um: How far ``dilation`` grows insides back.
        marker_threshold: Value of the distance map from which on ``watershed`` takes a marker.
    """

    method: str
    threshold: float
    min_area_um2: float = 0.0
    distance_um: float = 2.0
    dilation_um: float = 0.0
    marker_threshold: float = 0.5


@dataclass(frozen=True)
class ModelCard:
    """What a model is, what it takes and gives, and how it came to be.

    Attributes:
        name: The folder's name.
        architecture: A key of the registry.
        arguments: The architecture's arguments.
        input: ``H-C``, ``HE-C``, ``CN-H&E`` or ``RGB``; :mod:`karyon.stain.inputs` says what each is.
        mpp: Microns per model pixel.
        halo_px: Model pixels round a tile that its predictions depend on.
        stride: Sides and corners of tiles are multiples of this many model pixels.
        output: ``probability`` (sigmoid of the logits), ``softmax`` (over the maps) or ``value`` (over
            ``peak``, clipped to 0 to 1).
        decoding: How nuclei are read from the map.
        peak: What the network was trained to give at a nucleus' centre, for ``value``.
        maps: What each output of the network shows: ``centre``; ``inside``, ``boundary``, ``background``;
            ``nucleus``, ``distance`` (0 at the outline to 1 at the heart); ``inside:<class>`` for each class.
        target_stain: What ``CN-H&E`` normalises to: the fields of :class:`karyon.stain.inputs.TargetStain`.
        sha256: Of the weights file.
        training: Data, schedule, seed, seconds, command.
        metrics: Scores, with what they were measured on.
        licence: Terms of the weights and the training data.
    """

    name: str
    architecture: str
    arguments: dict[str, int]
    input: str
    mpp: float
    halo_px: int
    stride: int
    output: str
    decoding: Decoding
    peak: float = 1.0
    maps: tuple[str, ...] = CENTRE
    target_stain: dict[str, list] | None = None
    sha256: str = ""
    training: dict[str, object] = field(default_factory=dict)
    metrics: dict[str, object] = field(default_factory=dict)
    licence: str = ""

    def map_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of the maps of an image: ``(h, w)`` of the map of centres, else ``(c, h, w)``."""
        return (height, width) if self.maps == CENTRE else (len(self.maps), height, width)

    def inference(self) -> dict[str, object]:
        """The fields that the map of a slide depends on: for a stage's fingerprint."""
        names = (
            "sha256",
            "architecture",
            "arguments",
            "input",
            "mpp",
            "halo_px",
            "stride",
            "output",
            "peak",
            "maps",
            "target_stain",
        )
        return {name: getattr(self, name) for name in names}


def shipped_models() -> list[Path]:
    """Folders of the models that come with Karyon, by name."""
    return sorted(path.parent for path in SHIPPED.glob(f"*/{CARD}"))


def model_folder(model: str) -> Path:
    """The folder of a model: a name under ``resources/models/``, or a path.

    Raises:
        KaryonError: There is no such folder; the message lists the models there are.
    """
    for folder in (SHIPPED / model, Path(model)):
        if (folder / CARD).is_file():
            return folder
    names = [folder.name for folder in shipped_models()]
    raise KaryonError(f"model '{model}': neither a folder with a {CARD} nor one of: {', '.join(names)}")


def write_card(folder: Path, card: ModelCard) -> None:
    """Write or replace a model's card."""
    with atomic_path(folder / CARD) as temporary:
        temporary.write_text(
            yaml.safe_dump(
                asdict(card) | {"maps": list(card.maps)}, sort_keys=False, allow_unicode=True, width=100
            )
        )


def read_card(folder: Path) -> ModelCard:
    """Read a model's card.

    Raises:
        KaryonError: No card, or a card that lacks a field or has one too many.
    """
    path = folder / CARD
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        card = ModelCard(**{**content, "decoding": Decoding(**content["decoding"])})
        card = replace(card, maps=tuple(card.maps))
    except FileNotFoundError as error:
        raise KaryonError(f"{path}: no such model; `ls {folder.parent}` shows those there are") from error
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise KaryonError(f"{path}: not a model card ({error})") from error
    if card.input not in INPUT_CHANNELS:
        raise KaryonError(
            f"{path}: input is {show_value(card.input)}; expected one of {', '.join(INPUT_CHANNELS)}"
        )
    if card.input == "CN-H&E" and card.target_stain is None:
        raise KaryonError(f"{path}: the input CN-H&E needs target_stain: what colours are normalised to")
    _check_maps(path, card)
    return card


def _check_maps(path: Path, card: ModelCard) -> None:
    """See that the network gives the maps, and that they can be decoded as the card says."""
    given, method = card.arguments.get("out_channels", 1), card.decoding.method
    if given != len(card.maps):
        raise KaryonError(f"{path}: {len(card.maps)} maps, but the network gives {given} (out_channels)")
    if method not in NEEDED_MAPS:
        raise KaryonError(
            f"{path}: the decoding is {show_value(method)}; expected one of {', '.join(NEEDED_MAPS)}"
        )
    missing = NEEDED_MAPS[method] - {name.split(":")[0] for name in card.maps}
    if missing:
        raise KaryonError(
            f"{path}: the decoding {method} needs a map {' and '.join(sorted(missing))}; "
            f"maps are {', '.join(card.maps)}"
        )


def check_weights(folder: Path, card: ModelCard) -> Path:
    """See that a model's weights are those of its card, without building the network.

    Args:
        folder: The model's.
        card: Its card.

    Returns:
        The file of the weights.

    Raises:
        KaryonError: The weights are missing, are not those of the card, or are no safetensors file.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise KaryonError(f"{path}: the card is there but the weights are not")
    found = file_sha256(path)
    if found != card.sha256:
        raise KaryonError(
            f"{path}: sha256 is {found[:12]}..., the card says {card.sha256[:12]}...; restore the file"
        )
    try:
        with safe_open(path, framework="numpy"):
            return path
    except SafetensorError as error:
        raise wrong_weights(path, card, error) from error


def wrong_weights(path: Path, card: ModelCard, reason: Exception) -> KaryonError:
    """What is said of weights that are none, or do not fit the card's architecture."""
    return KaryonError(f"{path}: not the weights of {card.architecture} {card.arguments} ({reason})")


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
