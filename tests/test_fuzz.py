"""A short campaign of the fuzz harness: whatever is changed in a file is refused in a line, or changes nothing."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import fuzz
from experiments.benchmarks.fuzz import KINDS, Kind, campaign, damaged, make_files

TRIES = 6  # each kind of change once


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each kind. Whatever is changed is put back."""
    folder = tmp_path_factory.mktemp("files")
    make_files(folder)
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_nothing_wrong_goes_unnoticed(name: str, files: Path) -> None:
    counts, faults = campaign(files, name, TRIES, seed=1)
    assert not faults
    assert counts.total() >= TRIES - 1 and counts["refused in a line"] > (2 if KINDS[name].sealed else 0)


def unchecked(folder: Path) -> object:
    return np.fromfile(folder / "features" / "features.json", np.uint8)


def waiting(folder: Path) -> object:
    if unchecked(folder)[-1] != ord("\n"):
        os.read(os.pipe()[0], 1)
    return 1


@pytest.mark.parametrize(
    ("read", "why"), [(unchecked, "another result unseen"), (waiting, "more than 1 seconds")], ids=["unseen", "endless"]
)
def test_faults_would_be_seen(
    read: Callable[[Path], object], why: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "features, card", Kind("features/features.json", read))
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    counts, faults = campaign(files, "features, card", 2, seed=0)  # the second one cuts its end off
    assert counts["faults"] and all(why in fault for fault in faults)


def test_a_traceback_is_a_fault(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def read(folder: Path) -> object:
        calls.append(folder)
        return {1: "whole"}[len(calls)]

    monkeypatch.setitem(KINDS, "groups", Kind("groups.csv", read))
    counts, (fault,) = campaign(files, "groups", 1, seed=0)
    assert counts == {"faults": 1} and "KeyError: 2" in fault


def test_a_campaign_is_known_by_its_seed_and_changes_something() -> None:
    data = b'{"a": [1, 2, 3], "b": {"c": "text"}}\n' * 5
    for how in range(6):
        first, again, other = (damaged(data, how, np.random.default_rng(seed)) for seed in (0, 0, 1))
        assert first == again != other and first != data
