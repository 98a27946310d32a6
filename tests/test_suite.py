"""The suite of benchmarks: it knows all of them, keeps what they print, and goes on where it was stopped."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from cion_jax.errors import UserError
from experiments.benchmarks import suite as bench_suite
from experiments.benchmarks.suite import SUITE, Benchmark, main

HERE = Path(bench_suite.__file__).parent


def test_it_has_every_benchmark() -> None:
    modules = {benchmark.command.split()[0] for benchmark in SUITE.values()}
    assert all(find_spec(f"experiments.{module}") for module in modules)
    beside = {"__init__", "suite", "command", "timing", "memory", "torch_step", "torch_backbones"}
    assert {f"benchmarks.{path.stem}" for path in HERE.glob("*.py") if path.stem not in beside} <= modules


def test_what_they_print_is_kept_and_not_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_suite, "SUITE", {"paper": Benchmark("On paper", "benchmarks.projection resnet18")})
    assert main(tmp_path / "out") == 0
    result = json.loads((tmp_path / "out.json").read_text())["paper"]
    assert "40%" in [row[0] for row in result["rows"]] and result["environment"]
    text = (tmp_path / "out.md").read_text()
    assert "## On paper\n\n    python -m experiments.benchmarks.projection resnet18\n\nresnet18: " in text
    monkeypatch.setattr(bench_suite, "run", None)
    assert main(tmp_path / "out") == 0 and (tmp_path / "out.md").read_text() == text


def test_a_failure_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_suite, "SUITE", {"none": Benchmark("None", "benchmarks.projection nobody")})
    assert main(tmp_path / "out") == 1 and "It failed." in (tmp_path / "out.md").read_text()
    monkeypatch.setattr(bench_suite, "SUITE", {"none": Benchmark("None", "benchmarks.projection resnet18")})
    assert main(tmp_path / "out") == 0
    with pytest.raises(UserError, match="no benchmark is called other"):
        main(tmp_path / "out", ("other",))
    (tmp_path / "out.json").write_text("{")
    with pytest.raises(UserError, match=r"out\.json holds no results"):
        main(tmp_path / "out")


def test_a_users_mistake_is_told_in_a_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmarks.memory", "nobody"],
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stderr.startswith("memory: no experiment is called 'nobody'")
    assert done.stderr.count("\n") == 1
