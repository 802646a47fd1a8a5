"""The bench of the networks: every architecture in every way, and that all ways give the same map."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from karyon.bench import inference
from karyon.bench.inference import NARROW, PEER, measure_inference, ways_to_run
from karyon.models.initialisation import initialise_he
from karyon.models.registry import ARCHITECTURES, build

WAYS = ("float32", "bfloat16")


def test_bench_gives_every_architecture_in_every_way_as_a_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "THREADS", 1)  # two wait for each other where the machine has more to do
    lines = {line.name: line for line in measure_inference(tmp_path, 32)}
    assert set(lines) == {f"inference.{name}.{way}" for name in ARCHITECTURES for way in WAYS}
    for name in ARCHITECTURES:
        ways = [lines[f"inference.{name}.{way}"] for way in WAYS]
        assert len({line.peer_value for line in ways}) == 1
        for line in ways:
            assert line.peer_value is not None
            assert line.value > 0
            assert line.ratio == pytest.approx(line.value / line.peer_value)
            assert line.unit.startswith("Mpx/s, threads 1, width 8")
            assert (line.goal, line.met) == ("", None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NARROW)
def test_all_ways_give_the_map_of_the_network_as_built(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, **(NARROW[name] | {"width": 4})).eval()
    initialise_he(network)  # the last layer of some starts from zeros
    with torch.inference_mode():
        maps = {way: run() for way, run in ways_to_run(network, torch.rand(1, 1, 64, 80)).items()}
    expected = maps[PEER]
    spread = expected.std()
    assert expected.shape == (1, 1, 64, 80)
    assert spread > 0
    # Maps that have nothing to do with each other differ by more than 1. Where bfloat16 makes values equal,
    # segnet's pooling keeps another pixel of them.
    for way, tolerance in (("float32", 1e-4), ("bfloat16", 0.5)):
        error = (maps[way].float() - expected).square().mean().sqrt() / spread
        assert error < tolerance, way
    assert not torch.equal(maps["bfloat16"].float(), maps["float32"])
