"""The card that a file of weights carries, and the model card that is made of it."""

from dataclasses import replace
from pathlib import Path

import jax
import pytest

from cion_jax.errors import UserError
from cion_jax.finetune.bnneck import BNNeck
from cion_jax.models.zoo import Backbone, backbone
from cion_jax.weights.file import Weights, load, save
from cion_jax.weights.foreign import read_metadata, read_state, write_state

DATA = "0123456789abcdef"


@pytest.fixture(scope="module")
def model() -> Backbone:
    return replace(backbone("resnet10_half_ibn", image_size=(32, 16)), mean=(0.5, 0.25, 0.125), std=(1.0, 0.5, 0.25))


@pytest.fixture(scope="module")
def weights(model: Backbone) -> Weights:
    return Weights(model, model.init(jax.random.key(0)), origin={"data": DATA, "licence": "cc-by-4.0"})


@pytest.fixture(scope="module")
def file(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("card") / "ours.safetensors"
    save(path, weights)
    return path


def test_a_file_says_how_it_is_fed_and_where_it_comes_from(file: Path, weights: Weights) -> None:
    assert read_metadata(file) == {
        "backbone": "resnet10_half_ibn",
        "image_size": "32x16",
        "fused": "False",
        "mean": "0.5 0.25 0.125",
        "std": "1.0 0.5 0.25",
        "colours": "RGB",
        "resize": "bilinear",
        "width": "256",
        "neck": "none",
        "data": DATA,
        "licence": "cc-by-4.0",
        "format": "pt",
    }
    loaded = load(file)
    assert loaded.network == weights.network and loaded.origin == weights.origin


def test_a_file_without_a_card_is_read_as_before(file: Path, tmp_path: Path) -> None:
    old = {"backbone": "resnet10_half_ibn", "image_size": "32x16", "fused": "False"}
    write_state(tmp_path / "old.safetensors", read_state(file), metadata=old)
    loaded = load(tmp_path / "old.safetensors")
    assert loaded.network == backbone("resnet10_half_ibn", image_size=(32, 16)) and loaded.origin == {}


@pytest.mark.parametrize(("name", "text"), [("licence", "MIT\n---\nx: y"), ("data", "here"), ("mean", "1 2")])
def test_a_card_that_says_something_else_is_refused(name: str, text: str, file: Path, tmp_path: Path) -> None:
    """What is printed and sent to others cannot hold whatever somebody has written."""
    noted = {key: value for key, value in read_metadata(file).items() if key != "format"}
    write_state(tmp_path / "odd.safetensors", read_state(file), metadata=noted | {name: text})
    with pytest.raises(UserError, match=r"odd\.safetensors: "):
        load(tmp_path / "odd.safetensors")


def test_a_neck_is_told(model: Backbone, tmp_path: Path) -> None:
    network = BNNeck(model, 3, "after")
    save(
        tmp_path / "neck.safetensors", Weights(network, network.begin(jax.random.key(1), model.init(jax.random.key(0))))
    )
    assert read_metadata(tmp_path / "neck.safetensors")["neck"] == "batch normalisation, the feature is after it"
    assert load(tmp_path / "neck.safetensors").network == network
