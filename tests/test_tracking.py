"""Numbers of a run at services elsewhere: by stand-ins for their packages, which write down what they are told."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cion_jax.cli import main
from cion_jax.errors import UserError
from cion_jax.run import tracking
from cion_jax.run.journal import METRICS, Journal, read_metrics
from cion_jax.run.tracking import TRACKING, tracked
from tiny_pretrain import RUN, cion

SERVICES: tuple[Any, ...] = ("wandb", "mlflow", "trackio")


class Told:
    """What each service was told: runs by their id, and in them values by step."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, dict[int, dict[str, float]]]] = {name: {} for name in SERVICES}
        self.configs: dict[str, dict[str, Any]] = {}
        self.finished: list[str] = []
        self.fails = ""

    def run(self, service: str, identifier: str) -> dict[int, dict[str, float]]:
        return self.runs[service].setdefault(identifier, {})

    def log(self, service: str, identifier: str, values: dict[str, float], step: int) -> None:
        if self.fails == service:
            raise ConnectionError("no route\nto host")
        self.run(service, identifier)[step] = values


def stand_ins(told: Told) -> dict[str, ModuleType]:
    """The three packages, as far as we use them."""
    current: dict[str, str] = {}

    def wandb_init(*, id: str, config: dict[str, Any], resume: str, **_: Any) -> SimpleNamespace:
        told.run("wandb", id)
        told.configs["wandb"] = config
        return SimpleNamespace(
            log=lambda values, step: told.log("wandb", id, values, step), finish=lambda: told.finished.append("wandb")
        )

    def start_run(*, run_id: str | None, run_name: str | None) -> SimpleNamespace:
        assert (run_id is None) != (run_name is None)
        current["mlflow"] = run_id or f"given-{len(told.runs['mlflow'])}"
        told.run("mlflow", current["mlflow"])
        return SimpleNamespace(info=SimpleNamespace(run_id=current["mlflow"]))

    def trackio_init(*, name: str, config: dict[str, Any], **_: Any) -> None:
        current["trackio"] = name
        told.run("trackio", name)
        told.configs["trackio"] = config

    def members(service: str) -> dict[str, Any]:
        return {
            "wandb": {"init": wandb_init},
            "mlflow": {
                "set_experiment": lambda name: None,
                "start_run": start_run,
                "log_params": lambda params: told.configs.update(mlflow=params),
                "log_metrics": lambda values, step, synchronous: told.log("mlflow", current["mlflow"], values, step),
                "end_run": lambda: told.finished.append("mlflow"),
            },
            "trackio": {
                "init": trackio_init,
                "log": lambda values, step: told.log("trackio", current["trackio"], values, step),
                "finish": lambda: told.finished.append("trackio"),
            },
        }[service]

    modules = {name: ModuleType(name) for name in SERVICES}
    for name, module in modules.items():
        vars(module).update(members(name))
    return modules


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    told = Told()
    for name, module in stand_ins(told).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    yield told


def keep(folder: Path, steps: range, lines: list[str], services: tuple[Any, ...] = SERVICES) -> None:
    with (
        Journal(folder, 100, steps.start, 8, None) as journal,
        tracked(services, folder, {"epochs": 3}, lines.append) as log,
    ):
        journal.also_log(log)
        for step in steps:
            journal.record(step, step / 10, {"loss": 1.0 + step, "odd": float("nan")}, 0.0)


def test_every_service_has_what_the_journal_has_and_a_resumed_run_is_the_same_one(told: Told, tmp_path: Path) -> None:
    lines: list[str] = []
    keep(tmp_path, range(3), lines)
    known = json.loads((tmp_path / TRACKING).read_text())
    keep(tmp_path, range(2, 5), lines)
    assert json.loads((tmp_path / TRACKING).read_text()) == known and [*known] == [*SERVICES]
    for name in SERVICES:
        ((identifier, steps),) = told.runs[name].items()
        assert identifier == known[name] and [*steps] == [0, 1, 2, 3, 4]
        for row in read_metrics(tmp_path / METRICS):
            told_of = steps[row["step"]]
            assert (told_of["loss"], told_of["epoch"]) == (row["loss"], row["epoch"]) and "odd" not in told_of
    assert told.configs == {name: {"epochs": 3} for name in SERVICES}
    assert sorted(told.finished) == sorted(2 * SERVICES) and not lines


def test_a_service_that_fails_is_told_of_once_and_the_others_go_on(told: Told, tmp_path: Path) -> None:
    lines: list[str] = []
    told.fails = "mlflow"
    keep(tmp_path, range(3), lines)
    assert lines == [
        f"cion: mlflow fails (ConnectionError: no route); nothing more goes there, {tmp_path} has everything"
    ]
    assert [len(steps) for name in ("wandb", "trackio") for steps in told.runs[name].values()] == [3, 3]
    assert len(read_metrics(tmp_path / METRICS)) == 3


def test_a_service_that_cannot_begin_ends_the_command_with_a_line(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sys.modules["trackio"], "init")
    with pytest.raises(UserError, match="--log trackio: cannot begin"):
        keep(tmp_path, range(1), [], ("trackio",))


def test_a_package_that_is_missing_is_told_before_anything_is_done(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    options = ["--out", str(tmp_path / "run"), "--log", "wandb", "mlflow"]
    assert main(["pretrain", str(RUN), "--data", str(dataset), *options]) == 1
    error = capsys.readouterr().err
    assert error == "cion: --log wandb mlflow: not installed; pip install 'cion-jax[wandb,mlflow]'\n"
    assert not (tmp_path / "run").exists()


def test_a_training_tells_its_services(told: Told, tiny: None, dataset: Path, tmp_path: Path) -> None:
    one = ("--instances", "2", "--stages", "0", "--epochs", "1", "--warmup", "0", "--log", "trackio")
    assert cion(tmp_path / "run", dataset, *one) == 0
    (steps,) = told.runs["trackio"].values()
    rows = read_metrics(tmp_path / "run" / METRICS)
    assert [steps[row["step"]]["loss"] for row in rows] == [row["loss"] for row in rows] and len(rows) > 3
    assert told.configs["trackio"]["backbone"] == "tiny"
