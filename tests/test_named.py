"""Where arguments stand: one order in all commands, DATA and OUT also by name, and a folder for a run without one."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cion_jax.cli import COMMANDS, main
from cion_jax.commands.named import take_named
from cion_jax.commands.training import run_folder
from cion_jax.config import AUTO
from cion_jax.run.run_dir import claim, note_origin
from tiny import SETTINGS


def commands(tree: dict[str, Any] = COMMANDS, words: str = "cion") -> dict[str, Callable[..., Any]]:
    """All commands by their words."""
    result = {}
    for name, each in tree.items():
        result |= commands(each, f"{words} {name}") if isinstance(each, dict) else {f"{words} {name}": each}
    return result


@pytest.mark.parametrize("words", commands())
def test_data_and_out_have_a_place_and_a_name_in_every_command_that_has_them(words: str) -> None:
    command = commands()[words]
    own = {name for name in ("data", "out") if name in inspect.signature(command).parameters}
    named, others = take_named(command, ["--data", "D", "--rows=1", "--out=O", "word"])
    assert {name: str(value) for name, value in named.items()} == {name: name[0].upper() for name in own}
    assert ("--data" in others) == ("data" not in own) and ("--out=O" in others) == ("out" not in own)
    assert "--rows=1" in others and others[-1] == "word"


def test_what_is_given_by_name_has_no_place_any_more(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", "debug", "OUT", "too much", "--data", str(dataset), "--dry-run"])
    assert ended.value.code == 2
    assert "too much" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "run", "--data"])  # and no value
    assert ended.value.code == 2


def test_a_run_without_a_name_has_a_number_that_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def folder(data: str = "data", out: Path | None = None, **changes: Any) -> str:
        return str(run_folder(out, "tiny", replace(SETTINGS, **changes), tmp_path / data)[0])

    def begin(out: str, **changes: Any) -> None:
        claim(Path(out), replace(SETTINGS, **changes))
        note_origin(Path(out), tmp_path / "data", "")

    assert folder() == folder(seed=1) == "runs/tiny-1"
    begin("runs/tiny-1")
    assert folder() == folder(threads=9) == "runs/tiny-1"  # goes on with it
    assert folder(seed=1) == folder(data="other") == "runs/tiny-2"
    begin("runs/tiny-2", seed=1)
    assert (folder(), folder(seed=1), folder(seed=2)) == ("runs/tiny-1", "runs/tiny-2", "runs/tiny-3")
    Path("runs/tiny-3").mkdir()  # nobody's, but not free
    Path("runs/tiny-1/settings.json").write_text("{")
    assert folder() == "runs/tiny-4" and folder(out=Path("named")) == "named"


def test_numbers_that_are_auto_are_those_of_the_run_that_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    claim(Path("runs/tiny-1"), replace(SETTINGS, batch=32))
    out, settings = run_folder(None, "tiny", replace(SETTINGS, batch=AUTO), tmp_path)
    assert (str(out), settings.batch) == ("runs/tiny-1", 32)
