"""Every bench by name."""

from __future__ import annotations

from karyon.bench.bounds import measure_bounds
from karyon.bench.measurement import Bench
from karyon.bench.memory import measure_memory
from karyon.bench.pipeline import measure_pipeline
from karyon.bench.postprocess import measure_postprocess
from karyon.bench.slide import measure_slide
from karyon.bench.stain import measure_stain

BENCHES = {
    "memory": Bench(
        "peak memory of each stage on a slide and on one of a quarter the side", measure_memory, 40_000
    ),
    "postprocess": Bench(
        "stitch and nuclei of a map full of nuclei; labelling against skimage", measure_postprocess, 40_000
    ),
    "pipeline": Bench("stage infer against the bare network", measure_pipeline, 10_000),
    "stain": Bench("stain concentrations against spams.lasso", measure_stain, 2_000),
    "slide": Bench("seconds per gigapixel of tissue, stage by stage", measure_slide, 20_000),
    "bounds": Bench("what the machine can do: decoding, arithmetic, compression", measure_bounds, 10_000),
}
