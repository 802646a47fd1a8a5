"""What a model finds in the test images of a study, group by group, each done once."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from skimage.measure import regionprops
from tqdm import tqdm

from karyon.errors import KaryonError
from karyon.evaluation.detection import DetectionScore, score_detection
from karyon.evaluation.matching import match_points
from karyon.inference.predict import Predictor, input_layer
from karyon.io.atomic import atomic_path
from karyon.io.job import job_log
from karyon.io.sheets import read_sheet
from karyon.io.slides import open_slide
from karyon.models.card import ModelCard, model_folder, read_card
from karyon.models.folding import fold_batch_norm
from karyon.models.weights import load_model
from karyon.nuclei.decode import decode
from karyon.nuclei.instances import label_map
from karyon.study.plan import fingerprint
from karyon.tiles.grid import Grid, read_window
from karyon.training.data import read_annotation
from karyon.training.stains import image_stains

# Thresholds of the curves: probabilities, or shares xi of an image's maximum.
CURVE = tuple(round(0.1 * k, 1) for k in range(1, 10))


def predict_tests(
    model: str,
    sheets: Sequence[str],
    stains: str,
    radius_um: float,
    manifest: str,
    threads: int,
    gpus: int,
    log: str,
) -> None:
    """Run a model over the test images of every group that it has not seen yet in the state they are in.

    Args:
        model: Name or folder of the model.
        sheets: ``<group>.tsv`` of each group: its test images.
        stains: Folder of the images' stain fits.
        radius_um: Of matches, for the curves.
        manifest: ``<run>.parquet``, a row per group: ``group``, ``model_sha256``, ``threshold``, ``images``,
            ``megapixels``, ``seconds``, ``device`` and what the group's files were made of. These are beside
            it in ``<run>/``: ``<group>.parquet`` with detections and annotations, ``<group>.curve.parquet``.
        threads: CPU threads.
        gpus: 0 computes on the CPU.
        log: File for what is said.

    Raises:
        SystemExit: The model or an image is not usable; the message is for the user.
    """
    with job_log(log, "predict"):
        folder = Path(manifest).with_suffix("")
        rows = list(_predict_groups(model, sheets, stains, radius_um, folder, threads, gpus))
        with atomic_path(Path(manifest)) as temporary:
            pd.DataFrame(rows).to_parquet(temporary, index=False)


def _predict_groups(
    model: str,
    sheets: Sequence[str],
    stains: str,
    radius_um: float,
    folder: Path,
    threads: int,
    gpus: int,
) -> Iterator[dict[str, object]]:
    card = read_card(model_folder(model))
    predictor = None
    for sheet in sheets:
        group = Path(sheet).stem
        images = read_sheet(Path(sheet))
        made_of = f"{card.sha256} {card.decoding} {radius_um} {fingerprint(images)}"
        files = {"points": folder / f"{group}.parquet", "curve": folder / f"{group}.curve.parquet"}
        row = _row_of(folder / f"{group}.json", made_of, files.values())
        if row is None:
            predictor = predictor or _predictor(model, threads, gpus)
            start = time.perf_counter()
            points, curve, pixels = _predict_images(predictor, card, images, stains, radius_um, group)
            for name, table in (("points", points), ("curve", curve)):
                with atomic_path(files[name]) as temporary:
                    table.to_parquet(temporary, index=False)
            seconds = time.perf_counter() - start
            row = {
                "group": group,
                "model_sha256": card.sha256,
                "threshold": card.decoding.threshold,
                "images": len(images),
                "megapixels": pixels / 1e6,
                "seconds": seconds,
                "device": torch.cuda.get_device_name() if gpus else "CPU",
                "made_of": made_of,
            }
            with atomic_path(folder / f"{group}.json") as temporary:
                temporary.write_text(json.dumps(row, indent=1), encoding="utf-8")
            print(f"{group}: {len(images)} images in {seconds:.1f} s", file=sys.stderr)
        else:
            print(f"{group}: done before", file=sys.stderr)
        yield row


def _row_of(record: Path, made_of: str, files: Iterable[Path]) -> dict[str, object] | None:
    """The group's row where its files are there and were made of the same."""
    if not record.exists() or not all(file.exists() for file in files):
        return None
    row: dict[str, object] = json.loads(record.read_text(encoding="utf-8"))
    return row if row["made_of"] == made_of else None


def _predictor(model: str, threads: int, gpus: int) -> Predictor:
    if gpus and not torch.cuda.is_available():
        raise KaryonError(
            f"{platform.node()} was given a GPU but torch sees none: leave the node out until its driver is "
            "mended, or run on CPUs with --set-resources study_predict:gpu=0"
        )
    network, card = load_model(model_folder(model))
    device = torch.device("cuda" if gpus else "cpu")
    torch.set_num_threads(threads)
    return Predictor(fold_batch_norm(network), card.output, device, batch_size=1)


def _predict_images(
    predictor: Predictor, card: ModelCard, images: pd.DataFrame, stains: str, radius_um: float, group: str
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Detections and annotations of the images, their curves, and how many model pixels were looked at."""
    tables, curves, pixels = [], [], 0
    for _, image in tqdm(images.iterrows(), total=len(images), desc=group, disable=None):
        with open_slide(image["path"], image["mpp"]) as slide:
            facts = slide.facts
            grid = Grid.of_slide(facts, card.mpp)
            halo = card.halo_px
            # Beyond the image lies glass, as beyond a slide; sides are multiples of the stride.
            width, height = (side + 2 * halo for side in (grid.width, grid.height))
            width, height = (side + -side % card.stride for side in (width, height))
            rgb = read_window(slide, grid, -halo, -halo, width, height)
        fit = image_stains(image["path"], facts.mpp, image["stain"], stains)
        (values,) = predictor.predict(iter([rgb]), input_layer(card, fit, "hematoxylin"))
        values = values[..., halo : halo + grid.height, halo : halo + grid.width]
        nuclei = read_annotation(image, (facts.width, facts.height), facts.mpp)
        truth = nuclei.centres * facts.mpp
        found = _found(values, card, card.decoding.threshold, grid) * facts.mpp
        kinds = np.repeat(["found", "true"], [len(found), len(truth)])
        x_um, y_um = np.concatenate([found, truth]).T
        tables.append(
            pd.DataFrame({"image_id": image["slide_id"], "kind": kinds, "x_um": x_um, "y_um": y_um})
        )
        for threshold in CURVE:
            score = score_points(_found(values, card, threshold, grid) * facts.mpp, truth, radius_um)
            curves.append((image["slide_id"], threshold, score.tp, score.fp, score.fn))
        pixels += grid.width * grid.height
    curve = pd.DataFrame(curves, columns=["image_id", "threshold", "tp", "fp", "fn"])
    return pd.concat(tables, ignore_index=True), curve, pixels


def _found(values: np.ndarray, card: ModelCard, threshold: float, grid: Grid) -> np.ndarray:
    """Nuclei of a map at a threshold, or centroids of outlines, float64, ``(n, 2)``, in level-0 pixels."""
    decoding = replace(card.decoding, threshold=threshold)
    if values.ndim == 3:
        labels = label_map(values, decoding, card.maps, card.mpp)
        centres = [region.centroid[::-1] for region in regionprops(labels)]
        return grid.to_level0(np.array(centres).reshape(-1, 2))
    found = decode(values, decoding, int(values.max()), card.mpp)
    return grid.to_level0(np.stack([found.x, found.y], axis=1))


def score_points(found: np.ndarray, truth: np.ndarray, radius_um: float) -> DetectionScore:
    """Counts of one image; points in um, ``(n, 2)``."""
    return score_detection(match_points(found, truth, radius_um), len(found), len(truth))
