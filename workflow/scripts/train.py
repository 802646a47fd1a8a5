from karyon.training.job import train_job

train_job(
    experiment=snakemake.input[0],
    run=snakemake.params.run,
    card=snakemake.output.card,
    threads=snakemake.threads,
    gpus=snakemake.resources.get("gpu", 0),
    log=snakemake.log[0],
)
