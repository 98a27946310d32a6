"""docs/export.md: what stands there runs, and all four files give the same features."""

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from cion_jax.cli import main
from cion_jax.models.zoo import backbone
from cion_jax.weights.file import Weights, save
from cion_jax.weights.mapping import from_state_dict
from golden_weights import state

PAGE = (Path(__file__).parent.parent / "docs" / "export.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?```python\n(.*?)```", PAGE, re.M | re.S))


@pytest.fixture(scope="module")
def scope(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the page's commands write, in the folder of this process, and the pixels of an image of another size."""
    for package in ("flatbuffers", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("page")
    model = backbone("resnet18", image_size=(64, 32))
    save(folder / "ours.safetensors", Weights(model, from_state_dict(model.shapes(), state("resnet18"))))
    (folder / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (90, 50, 3), np.uint8)
    Image.fromarray(noise).save(folder / "photos" / "person.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in re.findall(r"^    cion (export .*)$", PAGE, re.MULTILINE):
            assert main(command.split()) == 0
        known: dict[str, object] = {}
        exec(SECTIONS["An image"], known)
        exec(SECTIONS["With this package"], known)
    return {**known, "folder": folder, "expected": known["features"]}


def test_the_page_has_a_way_for_each_file() -> None:
    assert [*SECTIONS] == ["An image", "With this package", "ONNX", "StableHLO", "PyTorch"]


@pytest.mark.slow
@pytest.mark.parametrize("title", ["ONNX", "StableHLO", "PyTorch"])
def test_the_features_are_those_of_this_package(
    title: str, scope: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    if title == "PyTorch":
        module: ModuleType = pytest.importorskip("torchvision")
        assert module
    monkeypatch.chdir(str(scope["folder"]))
    known = dict(scope)
    exec(SECTIONS[title], known)
    np.testing.assert_allclose(known["features"], scope["expected"], atol=2e-6)
