"""Weights under timm's names: features equal those of timm, or a line says that its network is another one."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from cion_jax.cli import main
from cion_jax.errors import UserError
from cion_jax.models.zoo import ZOO, backbone
from cion_jax.weights.file import convert
from cion_jax.weights.foreign import write_state
from cion_jax.weights.mapping import from_state_dict
from cion_jax.weights.state_dicts import without_classifier
from cion_jax.weights.timm_names import translated
from golden_weights import state, weight


@functools.cache
def recorded() -> dict[str, Any]:
    """By timm's name of a network: ours, keys and shapes, features (`python -m experiments.timm_golden`)."""
    return json.loads((Path(__file__).parent / "golden" / "timm.json").read_text())


@pytest.mark.parametrize("name", [*recorded()["networks"]])
def test_features_equal_those_of_timm(name: str) -> None:
    theirs = recorded()["networks"][name]
    weights = {key: weight(key, tuple(shape)) for key, shape in theirs["keys"]}
    options = {
        option: tuple(value) if isinstance(value, list) else value for option, value in theirs["options"].items()
    }
    with jax.enable_x64(True):
        model = backbone(theirs["ours"], drop_path=0.0, **options)
        renamed, notes = translated(weights, model.family)
        body, left_out = without_classifier(renamed)
        assert len(left_out) == 1 and "classifier" in left_out[0]
        assert [note for note in notes if "always_partition" in note] == notes
        variables = from_state_dict(model.shapes(), body)
        images = np.random.RandomState(0).standard_normal((2, *recorded()["size"], 3))
        features = np.asarray(jax.jit(model.apply)(variables, images))
    expected = np.array(theirs["features"])
    assert features.shape == expected.shape
    # The factors of our BatchNorms come from statistics in float32.
    assert np.abs(features - expected).max() < 2e-5 * np.sqrt(np.mean(expected**2))


@pytest.mark.parametrize("name", sorted({family.name for family in ZOO.values()}))
def test_our_own_names_stay(name: str) -> None:
    for ours in (ours for ours, family in ZOO.items() if family.name == name and ours != "resnet10_half_ibn"):
        own = dict.fromkeys((key for key in state_keys(ours)), np.zeros(0))
        assert translated(own, name) == (own, [])
        assert without_classifier(own) == (own, [])


def state_keys(name: str) -> list[str]:
    return [row[0] for row in json.loads((Path(__file__).parent / "manifest" / f"{name}.json").read_text())["keys"]]


def test_swins_with_other_windows_compute_something_else(tmp_path: Path) -> None:
    theirs = recorded()["networks"]["swin_tiny_patch4_window7_224"]
    weights = {key: weight(key, tuple(shape)) for key, shape in theirs["keys"]}
    table = "layers.0.blocks.0.attn.relative_position_bias_table"
    weights[table] = weights[table][: 13 * 13]
    write_state(tmp_path / "swin.pth", weights)
    with pytest.raises(UserError, match=r"for swin_tiny: this is timm's variant, .* not all of its windows are 8x8"):
        convert(tmp_path / "swin.pth", "swin_tiny")


def test_swins_of_their_authors_have_the_merging_at_the_end_of_a_stage() -> None:
    own = state("swin_tiny")
    authors = {key.replace("norm3.", "norm."): value for key, value in own.items()}
    authors["layers.0.blocks.1.attn_mask"] = np.zeros(3)
    renamed, notes = translated(authors, "Swin")
    assert renamed.keys() == own.keys() and len(notes) == 1


def test_the_gates_of_repvit_are_others(tmp_path: Path) -> None:
    write_state(tmp_path / "repvit.pth", {"stem.conv1.c.weight": np.zeros((24, 3, 3, 3), np.float32)})
    with pytest.raises(
        UserError, match=r"repvit\.pth for repvit_m0_9: this is timm's variant, which computes something"
    ):
        convert(tmp_path / "repvit.pth", "repvit_m0_9")


def timm_vit() -> dict[str, np.ndarray]:
    blocks = {key: value for key, value in state("vit_tiny").items() if not key.startswith("patch_embed.conv")}
    stem = {"patch_embed.proj.weight": np.zeros((192, 3, 16, 16), np.float32)}
    return blocks | stem | {"head.weight": np.zeros((7, 192), np.float32), "head.bias": np.zeros(7, np.float32)}


def test_the_stem_of_vit_is_another_and_may_be_left_as_initialised(tmp_path: Path) -> None:
    write_state(tmp_path / "vit.pth", timm_vit())
    with pytest.raises(UserError, match=r"this is timm's variant.* its stem is a single convolution.* do not fit"):
        convert(tmp_path / "vit.pth", "vit_tiny")
    renamed, notes = translated(timm_vit(), "ViT")
    assert len(notes) == 1 and "--allow 'patch_embed.*' leaves the stem as initialised" in notes[0]
    template = jax.tree.map(lambda leaf: np.full(leaf.shape, 7, leaf.dtype), backbone("vit_tiny").shapes())
    params = from_state_dict(template, without_classifier(renamed)[0], ["patch_embed.*"])["params"]
    assert (params["patch_embed"]["proj"]["kernel"] == 7).all()
    np.testing.assert_array_equal(params["blocks.3"]["mlp"]["fc1"]["bias"], state("vit_tiny")["blocks.3.mlp.fc1.bias"])


def test_the_last_stride_of_resnets_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = state("resnet18") | {"fc.weight": np.zeros((5, 512), np.float32), "fc.bias": np.zeros(5, np.float32)}
    write_state(tmp_path / "resnet18.pth", theirs)
    command = ["import", str(tmp_path / "resnet18.pth"), str(tmp_path / "ours.safetensors"), "--backbone=resnet18"]
    assert main(command) == 0
    stride, classifier, done = capsys.readouterr().out.splitlines()
    assert stride.startswith("the last stage of ResNets has stride 1 here") and "torchvision and timm 2" in stride
    assert classifier == "left out, the classifier: fc.weight, fc.bias"
    assert done.endswith("ours.safetensors: resnet18")
