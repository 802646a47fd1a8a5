"""Every bench by name."""

from __future__ import annotations

from karyon.bench.bounds import measure_bounds
from karyon.bench.dag import measure_dag
from karyon.bench.evaluation import measure_evaluation
from karyon.bench.inference import measure_inference
from karyon.bench.instances import measure_instances
from karyon.bench.matching import measure_matching
from karyon.bench.measurement import Bench
from karyon.bench.memory import measure_memory
from karyon.bench.metrics import measure_metrics
from karyon.bench.pipeline import measure_pipeline
from karyon.bench.postprocess import measure_postprocess
from karyon.bench.seam import measure_seam
from karyon.bench.slide import measure_slide
from karyon.bench.stain import measure_stain
from karyon.bench.study import measure_study
from karyon.bench.training import measure_training

BENCHES = {
    "memory": Bench(
        "peak memory of each stage on a slide and on one of a quarter the side", measure_memory, 40_000
    ),
    "postprocess": Bench(
        "stitch and nuclei of a map full of nuclei; labelling against skimage", measure_postprocess, 40_000
    ),
    "instances": Bench(
        "nuclei with outlines, figures and Parquet from the map of a slide; shapes against skimage",
        measure_instances,
        40_000,
    ),
    "pipeline": Bench("stage infer against the bare network", measure_pipeline, 10_000),
    "stain": Bench("stain concentrations against spams.lasso", measure_stain, 2_000),
    "slide": Bench("seconds per gigapixel of tissue, stage by stage", measure_slide, 20_000),
    "matching": Bench(
        "gated matching against a dense assignment, and its growth to a million points",
        measure_matching,
        1_000_000,
    ),
    "metrics": Bench(
        "segmentation figures and Hausdorff distances against loops over masks", measure_metrics, 1_000
    ),
    "evaluation": Bench(
        "stage evaluate on a slide of a million nuclei and annotations", measure_evaluation, 1_000_000
    ),
    "training": Bench(
        "the training loop against its bare step, and what drawing crops costs", measure_training, 2_000
    ),
    "inference": Bench(
        "every network as infer runs it and in bfloat16, against the network as built", measure_inference, 512
    ),
    "seam": Bench(
        "wrong pixels near the edges of patches, side by side, blended and with a halo", measure_seam, 14
    ),
    "dag": Bench("what it costs to plan a cohort of so many slides, and to start a job", measure_dag, 30_000),
    "study": Bench(
        "what it costs to plan and to score a cross-organ study of so many groups", measure_study, 23
    ),
    "bounds": Bench("what the machine can do: decoding, arithmetic, compression", measure_bounds, 10_000),
}
