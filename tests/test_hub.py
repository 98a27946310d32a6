"""Weights to a model hub and back, through a stand-in on this machine."""

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from cion_jax.cli import main
from cion_jax.models.zoo import backbone
from cion_jax.weights.file import Weights, load, save
from cion_jax.weights.foreign import read_state
from stand_in_hub import Hub, stand_in_hub
from weight_files import assert_same

DATA = "0123456789abcdef"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = backbone("resnet10_half_ibn", image_size=(32, 16))
    path = tmp_path_factory.mktemp("hub") / "ours.safetensors"
    save(path, Weights(model, model.init(jax.random.key(0)), origin={"data": DATA, "licence": "apache-2.0"}))
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    with stand_in_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("cion: ") and error.count("\n") == 1
    return error


def test_weights_go_to_a_hub_and_come_back(
    hub: Hub, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(file), "hf://people/finder"]) == 0
    there = hub.repositories["people/finder"]
    assert hub.private["people/finder"]
    assert there["model.safetensors"] == file.read_bytes()
    assert "license: apache-2.0" in there["README.md"].decode() and "cion pull hf://people/finder" in str(there)
    assert main(["pull", "hf://people/finder", str(tmp_path / "back.safetensors")]) == 0
    assert (tmp_path / "back.safetensors").read_bytes() == file.read_bytes()
    assert "resnet10_half_ibn, 32x16, licence apache-2.0" in capsys.readouterr().out


def test_a_card_that_somebody_has_completed_stays(hub: Hub, file: Path, tmp_path: Path) -> None:
    hub.repositories["people/finder"] = {"README.md": b"mine"}
    assert main(["push", str(file), "hf://people/finder"]) == 0
    assert hub.repositories["people/finder"]["README.md"] == b"mine"
    (tmp_path / "card.md").write_text("new")
    assert main(["push", str(file), "hf://people/finder", f"--card={tmp_path / 'card.md'}", "--public"]) == 0
    assert hub.repositories["people/finder"]["README.md"] == b"new"


def test_what_cannot_be_is_answered_with_a_line_and_leaves_nothing(
    hub: Hub, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "back.safetensors"
    assert "hf auth login" in refused(["pull", "hf://people/nobody", str(out)], capsys)
    hub.repositories["people/odd"] = {"model.safetensors": file.read_bytes()[:-4] + b"\0\0\0\1"}
    assert "not those that were written" in refused(["pull", "hf://people/odd", str(out)], capsys)
    hub.repositories["people/odd"] = {"README.md": b""}
    assert "hf://people/odd@main: the hub refuses" in refused(["pull", "hf://people/odd@main", str(out)], capsys)
    assert "name it as hf://OWNER/NAME" in refused(["push", str(file), "hf://people"], capsys)
    assert "leave @v1 out" in refused(["push", str(file), "hf://people/finder@v1"], capsys)
    assert not out.exists() and not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    monkeypatch.setattr("cion_jax.weights.hub.find_spec", lambda _: None)
    assert "pip install 'cion-jax[hub]'" in refused(["pull", "hf://people/odd", str(out)], capsys)


def test_a_card_is_printed_or_written_and_a_licence_goes_into_the_weights(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(file.read_bytes())
    assert main(["card", str(own)]) == 0
    page = capsys.readouterr().out
    assert page.startswith("---\nlicense: apache-2.0\nlibrary_name: cion-jax\n") and DATA in page
    assert "| neck | none |" in page
    assert "32 x 16 pixels" in page and "RGB" in page and "256 numbers" in page and "0.485 0.456 0.406" in page
    assert main(["card", str(own), str(tmp_path / "card.md"), "--licence=cc-by-nc-4.0"]) == 0
    assert "license: cc-by-nc-4.0" in (tmp_path / "card.md").read_text()
    assert load(own).origin == {"data": DATA, "licence": "cc-by-nc-4.0"}
    assert_same(read_state(own), read_state(file))
    assert "in small letters: apache-2.0" in refused(["card", str(own), "--licence=Apache 2"], capsys)
    assert "ending .md" in refused(["card", str(own), str(tmp_path / "card.html")], capsys)
