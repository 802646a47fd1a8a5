"""A real SLURM on this machine while a test needs it: two CPU nodes, and one with two pretended GPUs."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

GPUS = 2
NODES = ("cpu1", "cpu2", "gpu1")
PACKAGES = ("slurm-wlm", "munge")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
# Snakemake starts its inner `srun` without SLURM_CONF, so the configuration must lie where SLURM looks.
SYSTEM_CONF = Path("/etc/slurm/slurm.conf")
SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"


class UnavailableError(Exception):
    """There can be no SLURM here; the message says why."""


def install() -> None:
    """Install Debian's SLURM where it is missing.

    Raises:
        UnavailableError: That takes root, and a Debian or Ubuntu with its package servers.
    """
    if os.geteuid():
        raise UnavailableError("a SLURM of one's own can only be started by root")
    if SYSTEM_CONF.exists() and "ClusterName=karyontest" not in SYSTEM_CONF.read_text():
        raise UnavailableError(f"{SYSTEM_CONF} is this machine's own, and is left alone")
    if all(shutil.which(program, path=SBIN) for program in PROGRAMS):
        return
    if not shutil.which("apt-get"):
        raise UnavailableError("SLURM is not installed, and there is no apt-get to install it")
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(
            ["apt-get", *command], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise UnavailableError(
                f"apt-get cannot install {' '.join(PACKAGES)}: {done.stderr.strip()[-300:]}"
            )


@contextmanager
def running_cluster(folder: Path) -> Iterator[None]:
    """Start SLURM with its state in a folder, and stop it and all its jobs at the end.

    Raises:
        UnavailableError: See `install`.
        TimeoutError: It did not come up; the logs are in the folder.
    """
    install()
    configure(folder)
    with ExitStack() as daemons:
        daemons.callback(unlink_ours, folder)
        daemons.callback(end_survivors)
        key, munge = folder / "munge.key", folder / "munge.socket"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        munged = ("munged", "--foreground", "--force", f"--socket={munge}", *files)
        daemons.enter_context(daemon(folder, *munged))
        wait_until(munge.is_socket, 10, "munged listens")
        daemons.enter_context(daemon(folder, "slurmctld", "-D", "-c"))
        for node in NODES:
            daemons.enter_context(daemon(folder, "slurmd", "-D", "-N", node))
        daemons.callback(end_jobs)
        wait_until(all_idle, 60, "the nodes are idle")
        yield


def configure(folder: Path) -> None:
    """Write the configuration, with free ports, and show SLURM where it is."""
    folder.chmod(0o755)
    for name in ("state", *(f"spool/{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    template = Path(__file__).with_name("slurm.conf").read_text()
    values = {"cluster": cluster_name(), "host": socket.gethostname().split(".")[0]}
    ports = free_ports(1 + len(NODES))
    (folder / "slurm.conf").write_text(template.format(folder=folder, ports=ports, **values))
    for number in range(GPUS):  # slurmd wants devices: these are twins of /dev/null
        os.mknod(folder / f"gpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    gpus = f"NodeName=gpu1 Name=gpu Type=h200 File={folder}/gpu[0-{GPUS - 1}]\n"
    (folder / "gres.conf").write_text(gpus)
    SYSTEM_CONF.parent.mkdir(parents=True, exist_ok=True)
    SYSTEM_CONF.unlink(missing_ok=True)
    SYSTEM_CONF.symlink_to(folder / "slurm.conf")


def unlink_ours(folder: Path) -> None:
    if SYSTEM_CONF.is_symlink() and SYSTEM_CONF.readlink() == folder / "slurm.conf":
        SYSTEM_CONF.unlink()


def cluster_name() -> str:
    return f"karyontest{os.getpid()}"


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def daemon(folder: Path, *command: str) -> Iterator[None]:
    """Run a daemon in the foreground; should the tests be killed, it ends with them."""
    environment = {**os.environ, "PATH": SBIN, "SLURM_CONF": str(folder / "slurm.conf")}
    bound = ["setpriv", "--pdeathsig", "KILL", *command]
    with subprocess.Popen(bound, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def end_jobs() -> None:
    subprocess.run(["scancel", "--quiet", "--user=root"], check=False)
    wait_until(lambda: not ask("squeue", "--noheader"), 30, "all jobs have ended")


def end_survivors() -> None:
    """Kill what a node left running that was set down: processes know their cluster's name."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURM_CLUSTER_NAME") == cluster_name():
                process.kill()
        except psutil.Error:
            continue


def ask(*command: str) -> str:
    """What a SLURM command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def all_idle() -> bool:
    answer = subprocess.run(["sinfo", "-hNo", "%N %T"], capture_output=True, text=True, check=False).stdout
    return set(answer.splitlines()) == {f"{node} idle" for node in NODES}


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Ask again and again until something is so.

    Raises:
        TimeoutError: It was not so in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not after {seconds} s: {what}")
        time.sleep(0.2)


def job_records(folder: Path) -> list[dict[str, str]]:
    """SLURM's records of the jobs that were started in a folder, oldest first.

    Fields are named as `scontrol --details show job` does, and two more are taken from the comment that
    Snakemake gives a job: `rule` and `shard`.
    """
    records = []
    for line in ask("scontrol", "--details", "--oneliner", "show", "job").splitlines():
        record = dict(field.split("=", 1) for field in line.split() if "=" in field)
        if record.get("WorkDir") == str(folder):
            rule, _, wildcards = record.get("Comment", "").removeprefix("rule_").partition("_wildcards_")
            records.append({**record, "rule": rule, "shard": wildcards.partition("_")[2]})
    return sorted(records, key=lambda record: int(record["JobId"]))


def end_orphans(folder: Path) -> None:
    """End what runs on from jobs that SLURM gave up, as on a node that was set down."""
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or ()):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def stage_processes() -> dict[str, psutil.Process]:
    """The process that runs its script, below two Snakemakes, of every job that is at work, by job."""
    found = {}
    for process in psutil.process_iter():
        try:
            if ".snakemake/scripts/" in " ".join(process.cmdline()):
                found[process.environ().get("SLURM_JOB_ID", "")] = process
        except psutil.Error:
            continue
    return found
