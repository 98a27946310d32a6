"""Batches that are found for the devices at hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cion_jax.cli import main
from cion_jax.config import AUTO, Pretraining
from cion_jax.errors import UserError
from cion_jax.models.zoo import ZOO
from cion_jax.run import fit
from cion_jax.run.fit import SHARE, fitted
from cion_jax.run.forecast import Memory
from cion_jax.run.pretraining import PretrainingMethod, model_of, pretraining
from cion_jax.run.run_dir import SETTINGS as SETTINGS_FILE
from cion_jax.run.run_dir import as_begun
from tiny import FAMILY, SETTINGS

NEEDED = Memory(parameters=100, opt_state=50, temporaries=10, image=7, images=4)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ZOO, "tiny", FAMILY)
    monkeypatch.setattr(fit, "fitting_step", lambda method, *_: (method, None, []))
    monkeypatch.setattr(fit, "memory", lambda *_: NEEDED)


def find(monkeypatch: pytest.MonkeyPatch, bytes_for_images: int, **numbers: int) -> tuple[int, int]:
    """Batch and parts where the device has so many bytes left for images, of which each takes 7."""
    monkeypatch.setattr(fit, "memory_limit", lambda _: (NEEDED.fixed + bytes_for_images + 1) / SHARE)
    settings = replace(SETTINGS, **numbers)
    found = fitted(settings, {2, 4}, lambda settings: PretrainingMethod(settings, model_of(settings)))
    assert found == replace(settings, batch=found.batch, accumulate=found.accumulate)
    return found.batch, found.accumulate


def test_a_batch_is_the_largest_that_fits_and_suits_every_k(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find(monkeypatch, 7 * 23, batch=AUTO) == (20, 1)
    assert find(monkeypatch, 7 * 24, batch=AUTO) == (24, 1)
    assert find(monkeypatch, 7 * 24, batch=AUTO, accumulate=3) == (72, 3)
    assert find(monkeypatch, 7 * 24, batch=AUTO, accumulate=AUTO) == (24, 1)


def test_what_a_large_program_needs_counts_more_than_what_a_small_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([NEEDED, NEEDED._replace(image=9)])
    monkeypatch.setattr(fit, "memory", lambda *_: next(found))
    assert find(monkeypatch, 9 * 20, batch=AUTO) == (20, 1)  # by seven bytes an image 24 would fit


def test_parts_are_as_few_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find(monkeypatch, 7 * 24, batch=24, accumulate=AUTO) == (24, 1)
    assert find(monkeypatch, 7 * 24, batch=48, accumulate=AUTO) == (48, 2)
    assert find(monkeypatch, 7 * 24, batch=80, accumulate=AUTO) == (80, 4)  # 3 would leave a rest
    with pytest.raises(UserError, match="a batch of 26 images does not split"):
        find(monkeypatch, 7 * 24, batch=26, accumulate=AUTO)


def test_a_device_that_holds_no_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="do not hold 4 images of tiny"):
        find(monkeypatch, 7 * 3, batch=AUTO)


def test_numbers_that_are_given_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "memory", lambda *_: pytest.fail("a program was compiled"))
    assert pretraining(SETTINGS).settings == SETTINGS


def test_a_run_goes_on_with_the_batch_that_it_was_begun_with(tmp_path: Path) -> None:
    settings = Pretraining(batch=AUTO, accumulate=2)
    assert as_begun(tmp_path, settings) == settings
    (tmp_path / SETTINGS_FILE).write_text(json.dumps({"batch": 72, "accumulate": 3}))
    assert as_begun(tmp_path, settings) == replace(settings, batch=72)  # parts that were given are compared later
    assert as_begun(tmp_path, replace(settings, batch=8)).batch == 8
    (tmp_path / SETTINGS_FILE).write_text(json.dumps({"batch": "many"}))
    with pytest.raises(UserError, match="unreadable"):
        as_begun(tmp_path, settings)


def test_auto_is_a_word_of_the_command_line(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(Path(__file__).parent / "support" / "tiny_run.py")
    monkeypatch.setattr(fit, "memory_limit", lambda _: 0)
    command = ["pretrain", run, "--data", str(dataset), "--out", str(tmp_path / "run"), "--batch", "auto"]
    assert main(command) == 1
    assert "do not hold" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command[:-1], "large"])
    assert main([*command[:-1], "0"]) == 1
    assert "a batch of 0 images does not split" in capsys.readouterr().err
