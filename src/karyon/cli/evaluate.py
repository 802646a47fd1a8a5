"""`karyon evaluate`: every figure of one prediction against its truth, from two files."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from karyon.errors import KaryonError

if TYPE_CHECKING:
    import pandas as pd

    from karyon.evaluation.curve import DetectionCurve
    from karyon.evaluation.detection import DetectionScore
    from karyon.evaluation.pair import AreaScores, ClassScores, Nuclei, PointScores

NAME = "evaluate"
HELP = "Score one prediction against its truth, from two files of any known format, of any tool."
DEFAULT_RADIUS_UM = 4.0


class Figure(NamedTuple):
    """A figure: its name in JSON, what it is, its value, and whose definition it is."""

    key: str
    what: str
    value: float
    source: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = (
        "Positions are taken as the files write them, pixel centres at integers, and compared in TRUTH's "
        "pixels. QuPath's GeoJSON has pixel corners at integers and begins at the scanned area: against a "
        "file of another kind, move it with --pred-shift, by -0.5 -0.5 if it is PRED, 0.5 0.5 if TRUTH."
    )
    parser.add_argument("pred", type=Path, metavar="PRED", help="prediction, karyon's or another tool's")
    parser.add_argument("truth", type=Path, metavar="TRUTH", help="annotation")
    for side in ("pred", "truth"):
        parser.add_argument(
            f"--{side}-format",
            metavar="FORMAT",
            help=f"of {side.upper()}, where the extension does not say it; an unknown one lists all",
        )
    parser.add_argument(
        "--mpp", type=float, help="microns per pixel of both files (default: that of a nuclei table as PRED)"
    )
    parser.add_argument("--pred-mpp", type=float, metavar="MPP", help="of PRED; then --mpp is that of TRUTH")
    parser.add_argument(
        "--pred-shift",
        type=float,
        nargs=2,
        metavar=("X", "Y"),
        default=(0.0, 0.0),
        help="move PRED by so many pixels of TRUTH",
    )
    radius = parser.add_mutually_exclusive_group()
    radius.add_argument(
        "--radius",
        type=float,
        nargs="+",
        metavar="UM",
        help=f"largest distance of a match, in um (default: {DEFAULT_RADIUS_UM:g})",
    )
    radius.add_argument("--radius-px", type=float, nargs="+", metavar="PX", help="in TRUTH's pixels")
    parser.add_argument(
        "--region", type=Path, metavar="FILE", help="score what lies in these outlines or this mask only"
    )
    parser.add_argument("--points-only", action="store_true", help="compare centroids, not areas")
    parser.add_argument(
        "--matches", type=Path, metavar="FILE.parquet", help="write the match table of the first radius"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(args: argparse.Namespace) -> int:
    """Print the figures.

    Raises:
        KaryonError: A file cannot be read, the two do not go together, or an option is missing or wrong.
    """
    from karyon.evaluation.inputs import (
        NUCLEI_FORMAT,
        choose_format,
        nuclei_mpp,
        read_pair,
        read_region_file,
    )
    from karyon.evaluation.pair import matches_of_files, score_areas, score_points

    formats = [
        choose_format(path, named, option)
        for path, named, option in (
            (args.pred, args.pred_format, "--pred-format"),
            (args.truth, args.truth_format, "--truth-format"),
        )
    ]
    if args.mpp is None and args.pred_mpp is None and formats[0] == NUCLEI_FORMAT:
        args.mpp = nuclei_mpp(args.pred)
    radii = _radii_px(args)
    scale = 1.0 if args.pred_mpp is None else args.pred_mpp / args.mpp
    shift_x, shift_y = args.pred_shift
    predicted, truth = read_pair(
        (args.pred, formats[0]), (args.truth, formats[1]), scale, (shift_x, shift_y), not args.points_only
    )
    size = None if truth.instances is None else (truth.instances.shape[1], truth.instances.shape[0])
    region = read_region_file(args.region, size) if args.region else None
    mpp = args.mpp or 1.0
    points = [score_points(predicted, truth, radius, mpp, region) for radius in radii]
    areas = score_areas(predicted, truth, mpp, region)
    if args.matches:
        _write_matches(args.matches, matches_of_files(predicted, truth, points[0].counted, mpp))
    header = {
        name: {"path": str(path), "format": file_format, "nuclei": len(nuclei.points)}
        for name, path, file_format, nuclei in (
            ("pred", args.pred, formats[0], predicted),
            ("truth", args.truth, formats[1], truth),
        )
    }
    notes = list(_notes(args, formats, predicted, truth, points[0]))
    if args.json:
        _print_json(header, args.mpp, radii, points, areas, notes)
    else:
        _print_tables(header, args.mpp, radii, points, areas, notes)
    return 0


def _radii_px(args: argparse.Namespace) -> list[float]:
    """The radii in pixels, once the options are known to make sense together."""
    for option, values in (
        ("--mpp", [args.mpp]),
        ("--pred-mpp", [args.pred_mpp]),
        ("--radius", args.radius or []),
        ("--radius-px", args.radius_px or []),
    ):
        for value in values:
            if value is not None and not (math.isfinite(value) and value > 0):
                raise KaryonError(f"{option} is {value:g}; expected a number above 0.")
    if not all(map(math.isfinite, args.pred_shift)):
        raise KaryonError("--pred-shift is not finite; expected two numbers of pixels.")
    if args.matches and args.matches.suffix != ".parquet":
        raise KaryonError(f"{args.matches}: the match table is written as Parquet; expected FILE.parquet.")
    if args.mpp is None:
        for given, why in (
            (args.pred_mpp is not None, "--pred-mpp says PRED's microns per pixel"),
            (args.matches is not None, "the match table has distances in um"),
            (args.radius_px is None, "--radius is in um (--radius-px would be in pixels)"),
        ):
            if given:
                raise KaryonError(f"{why}; give --mpp, the microns per pixel of {args.truth}.")
    if args.radius_px is not None:
        return list(args.radius_px)
    return [radius / args.mpp for radius in args.radius or [DEFAULT_RADIUS_UM]]


def _write_matches(path: Path, table: pd.DataFrame) -> None:
    from karyon.io.atomic import atomic_path

    try:
        with atomic_path(path) as temporary:
            table.to_parquet(temporary, index=False, compression="zstd")
    except OSError as error:
        raise KaryonError(f"{path}: cannot be written ({error.strerror}).") from error


def _notes(
    args: argparse.Namespace,
    formats: Sequence[str],
    predicted: Nuclei,
    truth: Nuclei,
    scores: PointScores,
) -> Iterable[str]:
    """What the reader of the figures has to know to take them for what they are."""
    if args.mpp is None:
        yield "Distances are in pixels; with --mpp they are in um."
    if formats.count("geojson") == 1 and not any(args.pred_shift):
        yield (
            "One file is GeoJSON. QuPath's has pixel corners at integers, the other file pixel centres, so "
            "that all distances are off by up to 0.7 pixels: see --pred-shift."
        )
    if scores.classes is None:
        said, meant = ({name for name in side.class_name if name} for side in (predicted, truth))
        if said and meant:
            yield (
                f"No class occurs on both sides (PRED: {', '.join(sorted(said))}; TRUTH: "
                f"{', '.join(sorted(meant))}), so there are no figures of classes."
            )
    if args.region and truth.instances is not None and predicted.instances is not None:
        yield "Hausdorff distances are of whole files only, so there are none in a region."


def _why_undefined(n_predicted: int, n_truth: int) -> str:
    missing = [name for name, n in (("prediction", n_predicted), ("truth", n_truth)) if not n]
    return " and ".join(f"no {name}" for name in missing or ["match"])


def _point_figures(score: DetectionScore, unit: str) -> list[Figure]:
    return [
        Figure("tp", "true positives, pairs within the radius", score.tp, "MICRONET"),
        Figure("fp", "false positives", score.fp, "MICRONET"),
        Figure("fn", "misses", score.fn, "MICRONET"),
        Figure("precision", "precision", score.precision, "MICRONET"),
        Figure("recall", "recall", score.recall, "MICRONET"),
        Figure("f1", "F1", score.f1, "MICRONET"),
        Figure(f"distance_mean_{unit}", f"distance of pairs, mean, {unit}", score.distance_mean, "MICRONET"),
        Figure(f"distance_sd_{unit}", f"distance of pairs, s.d., {unit}", score.distance_sd, "MICRONET"),
    ]


def _curve_figures(curve: DetectionCurve) -> list[Figure]:
    return [
        Figure(
            "average_precision", "average precision (AP, all points)", curve.average_precision, "PASCAL VOC"
        ),
        Figure("best_threshold", "confidence of best F1", curve.best_threshold, "MICRONET"),
    ]


def _area_figures(areas: AreaScores, unit: str) -> list[Figure]:
    panoptic, errors = areas.sweep[0], areas.errors
    mean_f1 = sum(score.f1 for score in areas.sweep) / len(areas.sweep)
    figures = [
        Figure("dice", "Dice of the foregrounds", areas.dice.dice, "Dice 1945"),
        Figure("object_dice", "object Dice", areas.object_dice.object_dice, "JOINT, GlaS"),
        Figure("aji", "aggregated Jaccard index (AJI)", areas.aji.index, "CGAN, Kumar 2017"),
        Figure("aji_plus", "AJI+, one-to-one", areas.aji_plus.index, "HoVer-Net"),
        Figure("dq", "detection quality (DQ), F1 at IoU 0.5", panoptic.f1, "Kirillov 2019"),
        Figure("sq", "segmentation quality (SQ)", panoptic.mean_iou, "Kirillov 2019"),
        Figure("pq", "panoptic quality (PQ)", panoptic.panoptic_quality, "Kirillov 2019"),
        Figure("mean_f1", "F1, mean over IoU 0.5, 0.55 to 0.95", mean_f1, "Kirillov 2019"),
        Figure("joint_f1", "F1, over half of the true area", areas.truth_share.f1, "JOINT"),
        Figure("mdr", "missed detection rate (MDR)", errors.missed_rate, "NB"),
        Figure("fdr", "false detection rate (FDR)", errors.false_rate, "NB"),
        Figure("usr", "under-segmentation rate (USR)", errors.under_segmentation_rate, "NB"),
        Figure("osr", "over-segmentation rate (OSR)", errors.over_segmentation_rate, "NB"),
    ]
    if areas.foreground is not None and areas.object_hausdorff is not None:
        nearest, objects = areas.foreground, areas.object_hausdorff.object_hausdorff
        figures += [
            Figure(
                f"hausdorff_{unit}",
                f"Hausdorff distance of the foregrounds, {unit}",
                nearest.hausdorff,
                "CGAN",
            ),
            Figure(f"mean_hausdorff_{unit}", f"the same, of means, {unit}", nearest.average, "CGAN"),
            Figure(f"object_hausdorff_{unit}", f"object Hausdorff distance, {unit}", objects, "JOINT, GlaS"),
        ]
    return figures


def _print_json(
    header: dict[str, Any],
    mpp: float | None,
    radii: Sequence[float],
    points: Sequence[PointScores],
    areas: AreaScores | None,
    notes: Sequence[str],
) -> None:
    unit = "um" if mpp else "px"
    report: dict[str, Any] = {**header, "mpp": mpp, "points": [], "areas": None, "notes": notes}
    for radius, scores in zip(radii, points, strict=True):
        figures = _point_figures(scores.detection, unit)
        if scores.curve is not None:
            figures += _curve_figures(scores.curve)
        entry: dict[str, Any] = {"radius_px": radius, "radius_um": mpp and radius * mpp, **_values(figures)}
        if scores.classes is not None:
            entry["classes"] = _class_values(scores.classes, unit)
        report["points"].append(entry)
    if areas is not None:
        report["areas"] = _values(_area_figures(areas, unit))
    print(json.dumps(report, allow_nan=False))


def _class_values(classes: ClassScores, unit: str) -> dict[str, Any]:
    return {
        "names": classes.names,
        **_values([Figure("accuracy", "", classes.accuracy, "")]),
        **{
            rule: {
                name: _values(_point_figures(score, unit))
                for name, score in zip(classes.names, scores, strict=True)
            }
            for rule, scores in (("strict", classes.strict), ("detection_first", classes.detection_first))
        },
        "confusion": classes.confusion.tolist(),
    }


def _values(figures: Iterable[Figure]) -> dict[str, float | None]:
    """Values by name, an undefined one as ``None``."""
    return {figure.key: None if math.isnan(figure.value) else figure.value for figure in figures}


def _print_tables(
    header: dict[str, Any],
    mpp: float | None,
    radii: Sequence[float],
    points: Sequence[PointScores],
    areas: AreaScores | None,
    notes: Sequence[str],
) -> None:
    unit = "um" if mpp else "px"
    _print_rows(
        (name.upper(), side["path"], side["format"], f"{side['nuclei']:,} nuclei")
        for name, side in header.items()
    )
    for radius, scores in zip(radii, points, strict=True):
        size = f"{radius * mpp:g} um ({radius:g} px)" if mpp else f"{radius:g} px"
        print(f"\nPoints, matched within {size}")
        figures = _point_figures(scores.detection, unit)
        if scores.curve is not None:
            figures += _curve_figures(scores.curve)
        _print_figures(figures, _why_of(scores.detection))
        if scores.classes is not None:
            _print_classes(scores.classes, size)
    if areas is not None:
        print("\nAreas")
        _print_figures(_area_figures(areas, unit), _why_undefined(areas.n_predicted, areas.n_truth))
    for note in notes:
        print(f"\nNote: {note}")


def _print_classes(classes: ClassScores, size: str) -> None:
    for title, scores in (
        ("each class matched on its own (MIDOG)", classes.strict),
        ("classes of the pairs above (HoVer-Net, JOINT)", classes.detection_first),
    ):
        print(f"\nClasses within {size}, {title}")
        rows: list[Sequence[str]] = [("class", "TP", "FP", "FN", "precision", "recall", "F1")]
        for name, score in zip(classes.names, scores, strict=True):
            values = (score.tp, score.fp, score.fn, score.precision, score.recall, score.f1)
            rows.append((name, *(_text(value, _why_of(score)) for value in values)))
        _print_rows(rows)
    print(f"\nClass accuracy of the pairs (JOINT): {_text(classes.accuracy, 'no pair with a class')}")
    print("\nConfusion: true class by row, predicted class by column")
    columns = (*classes.names, "(missed)")
    lines = zip((*classes.names, "(false)"), classes.confusion.tolist(), strict=True)
    _print_rows([("", *columns), *((name, *(f"{count:,}" for count in line)) for name, line in lines)])


def _why_of(score: DetectionScore) -> str:
    return _why_undefined(score.tp + score.fp, score.tp + score.fn)


def _print_figures(figures: Iterable[Figure], why: str) -> None:
    _print_rows((figure.what, _text(figure.value, why), figure.source) for figure in figures)


def _text(value: float, why_undefined: str) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"undefined ({why_undefined})" if math.isnan(value) else f"{value:.4f}"


def _print_rows(rows: Iterable[Sequence[str]]) -> None:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
