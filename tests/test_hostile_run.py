"""A run's files that somebody has touched: `cion report` and a resume answer in one line."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cion_jax.commands.report import report
from cion_jax.data.labels import write_labelling
from cion_jax.errors import UserError
from cion_jax.report.run import read_run, training_of
from cion_jax.run.journal import Journal, read_metrics
from cion_jax.untrusted import read_json

SETTINGS = {"backbone": "small", "level": "identity", "epochs": 3}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a run has on its way, as far as no network is needed."""
    (tmp_path / "run" / "labels").mkdir(parents=True)
    (tmp_path / "run" / "settings.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "run" / "origin.json").write_text(json.dumps({"data": "/nowhere", "fingerprint": "f"}))
    rows = [{"step": step, "time": 0.0, "epoch": step / 2, "loss": 9.0 - step} for step in range(6)]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = tmp_path / "run" / "labels" / "epoch-00001.npz"
    write_labelling(labels, np.zeros(9), "f", {}, noise=np.ones((3, 4), int))
    return tmp_path / "run"


def test_what_is_whole_is_reported(run: Path) -> None:
    report(run)
    assert read_run(run).labels == {1: run / "labels" / "epoch-00001.npz"}


_DEEP = "[" * 40 + "]" * 40


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("settings.json", "[" * 100_000),
        ("settings.json", '{"backbone": "small", "level": "identity", "head": ' + _DEEP + "}"),
        ("settings.json", '{"backbone": ["small"], "level": "identity"}'),
        ("settings.json", '{"backbone": "small", "level": 3}'),
        ("settings.json", '{"backbone": "small", "level": "identity", "epochs": "3"}'),
        ("settings.json", '{"backbone": "small", "level": "identity", "epochs": true}'),
        ("settings.json", '{"backbone": "small", "level": "identity", "evaluate": {}}'),
        ("settings.json", '{"backbone": "small", "level": "identity", "labels": [1]}'),
        ("settings.json", '{"backbone": "small", "level": "identity", "epochs": NaN}'),
        ("settings.json", "\udcff"),
        ("origin.json", "null"),
        ("origin.json", '{"data": 3}'),
        ("origin.json", '{"fingerprint": []}'),
        ("origin.json", '{"environment": "python"}'),
        ("origin.json", '{"began": {}}'),
        ("metrics.jsonl", "[]\n"),
        ("metrics.jsonl", "3\n"),
        ("metrics.jsonl", '{"step": "1"}\n'),
        ("metrics.jsonl", '{"step": 1, "loss": null}\n'),
        ("metrics.jsonl", '{"step": 1, "loss": "three"}\n'),
        ("metrics.jsonl", '{"step": 1, "loss": [1]}\n'),
        ("metrics.jsonl", '{"step": 1, "loss": true}\n'),
        ("metrics.jsonl", '{"step": 1, "epoch": {}}\n'),
        ("metrics.jsonl", '{"step": 1, "warning": 3}\n'),
        ("metrics.jsonl", '{"step": 1, "loss": 1' + "0" * 400 + "}\n"),
        ("metrics.jsonl", '{"step": 2}\n{"step": 1}\n'),
        ("metrics.jsonl", "[" * 100_000 + "\n"),
        ("metrics.jsonl", " " * (1 << 21) + "\n"),
        ("metrics.jsonl", "\0" * 100 + "\n"),
    ],
)
def test_malformed_files_are_refused_in_one_line(run: Path, name: str, text: str) -> None:
    (run / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError) as refusal:
        report(run)
    assert name in str(refusal.value) and len(str(refusal.value).splitlines()) == 1
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("noise", [np.ones(4, int), np.ones((0, 4), int), np.ones((3, 3), int), np.ones((3, 4))])
def test_noise_of_another_shape_is_refused(noise: np.ndarray, run: Path) -> None:
    path = run / "labels" / "epoch-00001.npz"
    write_labelling(path, np.zeros(9), "f", {}, noise=noise)
    with pytest.raises(UserError, match=r"epoch-00001\.npz: noise is .* of shape"):
        [*training_of(read_run(run))]


def test_epochs_without_end_are_not_looked_for(run: Path) -> None:
    (run / "settings.json").write_text(json.dumps(SETTINGS | {"epochs": 10**15}))
    report(run)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
@pytest.mark.parametrize("name", ["settings.json", "origin.json", "metrics.jsonl"])
def test_what_is_no_file_is_refused_at_once(make: Any, name: str, run: Path) -> None:
    (run / name).unlink()
    make(run / name)
    with pytest.raises(UserError, match=rf"{name}: a (folder|pipe), not a file"):
        report(run)


def test_a_resume_refuses_a_journal_whose_steps_do_not_rise(run: Path) -> None:
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace('"step": 2', '"step": 5'))
    with pytest.raises(UserError, match="line 4 is no step's metrics; remove the line"):
        Journal(run, total_steps=10, first_step=6, images_per_step=1, flops_per_step=None)
    assert (run / "metrics.jsonl").read_text() == text.replace('"step": 2', '"step": 5')
    (run / "metrics.jsonl").write_text(text)
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [*range(6)]


def test_json_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(1 << 40)  # a sparse file takes no room
    with pytest.raises(UserError, match=r"large\.json: has more than 16,777,216 bytes; name another"):
        read_json(tmp_path / "large.json", "name another")
