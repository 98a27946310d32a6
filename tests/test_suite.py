"""The suite of benchmarks: it knows all of them, keeps what they print, goes on where it was stopped, writes pages."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cion_jax.errors import UserError
from experiments.benchmarks import suite as bench_suite
from experiments.benchmarks.suite import PAGES, RESULTS, SUITE, Benchmark, filled, main, marked, read

HERE = Path(bench_suite.__file__).parent
ROOT = HERE.parent.parent
PAPER = Benchmark("On paper", "benchmarks.projection resnet18")


def result(*printed: str, command: str = "python -m experiments.benchmarks.order") -> dict[str, Any]:
    return {"command": command, "environment": "", "date": "2026-01-31", "seconds": 1.0, "ok": True, "printed": printed}


def page(*names: str) -> str:
    return "".join(f"Before {name}.\n\n<!-- begin {name} -->\n<!-- end {name} -->\n\nAfter.\n" for name in names)


def test_it_has_every_benchmark() -> None:
    modules = {benchmark.arguments.split()[0] for benchmark in SUITE.values() if not benchmark.is_program}
    assert all(find_spec(f"experiments.{module}") for module in modules)
    beside = {
        "__init__",
        "suite",
        "command",
        "options",
        "timing",
        "memory",
        "torch_step",
        "torch_backbones",
        "torch_finetune",
        "torch_resnets",
    }
    assert {f"benchmarks.{path.stem}" for path in HERE.glob("*.py") if path.stem not in beside} <= modules


def test_what_they_print_is_kept_and_not_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    private = Benchmark("Private", "benchmarks.nothing", only_by_name=True)
    monkeypatch.setattr(bench_suite, "SUITE", {"paper": PAPER, "private": private})
    assert main(tmp_path / "out") == 0
    results = read(tmp_path / "out.json")
    assert results.keys() == {"paper"} and results["paper"]["environment"]
    assert any(line.startswith("| 40% |") for line in results["paper"]["printed"])
    text = (tmp_path / "out.md").read_text()
    assert "## On paper\n\n    python -m experiments.benchmarks.projection resnet18\n\nMeasured on 20" in text
    assert "\n\nresnet18: " in text and "```" not in text
    monkeypatch.setattr(bench_suite, "run", None)
    assert main(tmp_path / "out") == 0 and (tmp_path / "out.md").read_text() == text
    monkeypatch.setattr(bench_suite, "run", lambda benchmark: result(benchmark.title))
    assert main(tmp_path / "out", ("paper", "private")) == 0
    assert read(tmp_path / "out.json")["paper"]["printed"] == ["On paper"]


def test_a_failure_is_named_and_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_suite, "SUITE", {"none": Benchmark("None", "benchmarks.projection nobody")})
    assert main(tmp_path / "out") == 1 and "It failed." in (tmp_path / "out.md").read_text()
    monkeypatch.setattr(bench_suite, "SUITE", {"none": PAPER})
    assert main(tmp_path / "out") == 0
    with pytest.raises(UserError, match="no benchmark is called other"):
        main(tmp_path / "out", ("other",))
    (tmp_path / "out.json").write_text("{")
    with pytest.raises(UserError, match=r"out\.json holds no results"):
        main(tmp_path / "out")


def test_pages_are_written_from_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "page.md"
    path.write_text(page("order", "index", "store"))
    monkeypatch.setattr(bench_suite, "PAGES", (path,))
    monkeypatch.setattr(bench_suite, "run", None)  # nothing is measured
    failed = result() | {"ok": False}
    order, index = result("3 cores", "an epoch: 0.5 s"), result("3 cores", "", "| a |", "|---|", "| 0.25 |")
    (tmp_path / "out.json").write_text(json.dumps({"order": order, "index": index, "store": failed}))
    assert main(tmp_path / "out", write=True) == 0
    assert capsys.readouterr().out.startswith("page.md: no result of store yet; ")
    text = path.read_text()
    command = "    python -m experiments.benchmarks.order\n\nMeasured on 2026-01-31:\n\n"
    assert f"Before order.\n\n<!-- begin order -->\n\n{command}```\n3 cores\nan epoch: 0.5 s\n```\n\n<!-- end" in text
    assert f"<!-- begin index -->\n\n{command}3 cores\n\n| a |\n|---|\n| 0.25 |\n\n<!-- end index -->\n\nAfter." in text
    assert text.endswith(page("store"))
    main(tmp_path / "out", write=True)
    assert path.read_text() == text
    path.write_text(text.replace("0.25", "0.75"))
    main(tmp_path / "out", write=True)
    assert path.read_text() == text


def test_a_place_may_show_one_of_the_tables() -> None:
    results = {"order": result("Before.", "", "| a |", "|---|", "", "Between.", "| b |", "|---|", "| 1 |", "After.")}
    shown = filled("README.md", page("order:2"), results)
    assert (
        "\n\n| b |\n|---|\n| 1 |\n\n<!-- end order:2 -->" in shown and "Between" not in shown and "| a |" not in shown
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (page("order", "nothing"), r"page\.md, line 9: no benchmark is called nothing; there are demo, records, "),
        ("<!-- begin order -->\n", r"page\.md, line 1: '<!-- begin order -->' is not one of a pair"),
        ("\n<!-- end order -->\n", r"page\.md, line 2: '<!-- end order -->' is not one of a pair"),
        ("<!-- begin order -->\n" + page("index"), r"page\.md, line 1: .* is not one of a pair"),
        (page("order", "order"), r"page\.md, line 9: order has a place already"),
    ],
)
def test_marks_that_are_wrong_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        filled("page.md", text, {"order": result("0.5 s")})


def test_the_pages_of_the_repository_have_the_figures_of_its_results() -> None:
    results = read(RESULTS.with_suffix(".json"))
    shown: set[str] = set()
    for path in PAGES:
        text = path.read_text()
        assert filled(path.name, text, results) == text, "run python -m experiments.benchmarks.suite --write"
        shown |= {name.partition(":")[0] for name in marked(path.name, text)}
    assert shown and shown <= results.keys()
    assert {name: results[name]["command"] for name in shown} == {name: SUITE[name].command for name in shown}


@pytest.mark.parametrize("module", ["experiments.denoising", "experiments.benchmarks.order"])
def test_help_names_the_command_that_one_types(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith(f"usage: python -m {module} [-h]")


def test_a_users_mistake_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmarks.memory", "nobody"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.startswith("memory: no experiment is called 'nobody'")
    assert done.stderr.count("\n") == 1
