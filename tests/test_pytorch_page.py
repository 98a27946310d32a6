"""docs/pytorch.md: what stands there runs, and every network gives the features of the ONNX file of its weights."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cion_jax.cli import main
from cion_jax.models.zoo import backbone
from cion_jax.weights.file import Weights, save
from cion_jax.weights.mapping import from_state_dict
from golden_weights import state

PAGE = (Path(__file__).parent.parent / "docs" / "pytorch.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?```python\n(.*?)```", PAGE, re.M | re.S))
#: The section of each backbone, and the package that it needs.
NETWORKS = {
    "resnet50": ("ResNet", "torchvision"),
    "ghostnet_1_0": ("GhostNet", "timm"),
    "volo_d1": ("VOLO", "timm"),
}


def test_the_page_has_a_section_for_each_family_of_its_table() -> None:
    assert [*SECTIONS] == ["Pixels", *(title for title, _ in NETWORKS.values()), "Features", "All others"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_pytorch_gives_the_same_features(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    title, package = NETWORKS[name]
    for each in ("onnx", "onnxruntime", package):
        pytest.importorskip(each)
    monkeypatch.chdir(tmp_path)
    model = backbone(name)
    Path("RUN").mkdir()
    save(Path("RUN/teacher.safetensors"), Weights(model, from_state_dict(model.shapes(), state(name))))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 50, 3), np.uint8)).save("person.jpg")
    for command in re.findall(r"^    cion (export .*)$", PAGE, re.MULTILINE):
        assert main(command.split()) == 0
    known: dict[str, Any] = {}
    exec(SECTIONS["Pixels"], known)
    exec(SECTIONS["All others"], known)
    expected = known.pop("features")
    exec(SECTIONS[title] + SECTIONS["Features"], known)
    np.testing.assert_allclose(known["features"], expected, atol=2e-6)
