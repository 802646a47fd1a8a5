from karyon.study.predict import predict_tests

predict_tests(
    model=snakemake.params.model,
    sheets=snakemake.input.tests,
    stains=snakemake.params.stains,
    radius_um=snakemake.params.radius_um,
    manifest=snakemake.output[0],
    threads=snakemake.threads,
    gpus=snakemake.resources.get("gpu", 0),
    log=snakemake.log[0],
)
