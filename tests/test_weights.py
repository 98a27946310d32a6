"""Weights in and out: bit-exact round trips, one message for all that does not fit, adaptation on request."""

from pathlib import Path

import jax
import numpy as np
import pytest

from cion_jax.cli import main
from cion_jax.errors import UserError
from cion_jax.models import head
from cion_jax.models.zoo import backbone
from cion_jax.weights.file import Weights, convert, load, reidzoo, save
from cion_jax.weights.foreign import read_state, write_state
from cion_jax.weights.mapping import from_state_dict, state_dict
from golden_weights import images, state, weight


def golden_head(inputs: int) -> dict[str, np.ndarray]:
    shapes = jax.eval_shape(lambda key: head.init(key, inputs, 300, hidden=64, bottleneck=32), jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return {key: weight(key, value.shape) for key, value in state_dict(zeros, head.ORDER.split()).items()}


def checkpoint(name: str, path: Path) -> dict[str, np.ndarray]:
    """A teacher as ReIDZoo saves it, with its head; returns its keys and values."""
    wrapper = "" if name.startswith(("swin", "convnext", "edgenext")) else "module."
    body = {f"{wrapper}backbone.{key}": value for key, value in state(name).items()}
    tail = {f"{wrapper}head.{key}": value for key, value in golden_head(512).items()}
    write_state(path, body | tail, wrap="teacher")
    return body | tail


def same(state: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return list(state) == list(expected) and all(
        np.array_equal(state[key], expected[key]) and state[key].dtype == expected[key].dtype for key in expected
    )


@pytest.mark.parametrize("name", ["resnet18_ibn", "swin_tiny"])
def test_a_checkpoint_comes_in_and_goes_out_unchanged(name: str, tmp_path: Path) -> None:
    expected = checkpoint(name, tmp_path / "checkpoint.pth")
    ours = tmp_path / "ours.safetensors"
    assert main(["import", str(tmp_path / "checkpoint.pth"), str(ours), "--backbone", name]) == 0
    assert main(["export", str(ours), str(tmp_path / "back.pth"), "--layout=reidzoo"]) == 0
    assert same(read_state(tmp_path / "back.pth"), expected)
    assert (tmp_path / "back.pth").read_bytes() == (tmp_path / "checkpoint.pth").read_bytes()
    assert main(["export", str(ours), str(tmp_path / "plain.pth")]) == 0
    assert same(read_state(tmp_path / "plain.pth"), state(name))
    assert main(["export", str(ours), str(tmp_path / "plain.safetensors")]) == 0
    assert same(read_state(tmp_path / "plain.safetensors"), dict(sorted(state(name).items())))
    prefixes = {key.split("backbone.")[0] for key in reidzoo(load(ours)) if "backbone." in key}
    assert prefixes == ({"module."} if name == "resnet18_ibn" else {""})


def test_the_fused_form_is_exported_and_kept(tmp_path: Path) -> None:
    write_state(tmp_path / "trained.pth", state("repvit_m0_9"))
    ours = tmp_path / "ours.safetensors"
    assert main(["import", str(tmp_path / "trained.pth"), str(ours), "--backbone=repvit_m0_9"]) == 0
    assert main(["export", str(ours), str(tmp_path / "fused.pth"), "--fused"]) == 0
    weights = load(ours)
    form, variables = weights.network.fused(weights.variables)
    exported = read_state(tmp_path / "fused.pth")
    assert same(exported, state_dict(variables, form.order))
    assert not any("running" in key for key in exported) and len(exported) < len(state("repvit_m0_9")) / 3
    save(tmp_path / "fused.safetensors", Weights(form, variables))
    again = load(tmp_path / "fused.safetensors")
    assert again.network.is_fused and same(state_dict(again.variables, form.order), exported)
    small = images()[1]
    expected = np.asarray(jax.jit(weights.network.apply)(weights.variables, small))
    features = np.asarray(jax.jit(form.apply)(again.variables, small))
    assert np.abs(features - expected).max() / np.sqrt(np.mean(expected**2)) < 1e-4


def test_all_that_does_not_fit_is_named_at_once() -> None:
    model = backbone("resnet18")
    weights = state("resnet18")
    weights["conv1.weight"] = weights["conv1.weight"][:, :1]
    weights["fc.weight"] = weights["fc.bias"] = np.zeros(3, np.float32)
    del weights["layer1.0.bn1.running_mean"]
    with pytest.raises(UserError) as refusal:
        from_state_dict(model.shapes(), weights)
    assert str(refusal.value) == (
        "the weights do not fit: 1 missing: layer1.0.bn1.running_mean; 2 unexpected: fc.weight, fc.bias; "
        "1 misshapen: conv1.weight is (64, 1, 7, 7), not (64, 3, 7, 7)"
    )


def test_named_keys_may_pass_and_stay_as_initialised() -> None:
    model = backbone("resnet18")
    weights = state("resnet18")
    fresh = model.init(jax.random.key(0))
    weights["fc.weight"] = np.zeros(3, np.float32)
    del weights["layer4.1.bn2.weight"]
    variables = from_state_dict(fresh, weights, allow=["fc.*", "layer4.1.bn2.weight"])
    np.testing.assert_array_equal(variables["params"]["layer4.1"]["bn2"]["scale"], 1)
    np.testing.assert_array_equal(variables["params"]["bn1"]["scale"], weights["bn1.weight"])


def test_a_table_of_positions_and_a_stem_are_adapted_on_request(tmp_path: Path) -> None:
    weights = state("vit_tiny")
    square = np.random.default_rng(0).standard_normal((1, 1 + 14 * 14, 192)).astype(np.float32)
    weights["pos_embed"] = square
    grey = weights["patch_embed.conv.0.weight"][:, :1].copy()
    weights["patch_embed.conv.0.weight"] = grey
    write_state(tmp_path / "square.pth", weights)
    with pytest.raises(UserError, match=r"2 misshapen: .*pos_embed is \(1, 197, 192\), not \(1, 129, 192\)"):
        convert(tmp_path / "square.pth", "vit_tiny")
    converted, notes = convert(tmp_path / "square.pth", "vit_tiny", adapt=True)
    table = np.asarray(converted.variables["params"]["pos_embed"])
    assert len(notes) == 2 and table.shape == (1, 129, 192)
    np.testing.assert_array_equal(table[:, 0], square[:, 0])
    assert abs(table[:, 1:].mean() - square[:, 1:].mean()) < 0.01
    kernel = np.asarray(converted.variables["params"]["patch_embed"]["conv.0"]["kernel"])
    np.testing.assert_allclose(kernel.sum(2), grey[:, 0].transpose(1, 2, 0), rtol=1e-5)


def test_adapted_positions_vary_smoothly_over_the_new_grid(tmp_path: Path) -> None:
    """A table that is linear in row and column stays nearly so (this cubic is not exact on lines), but at the edges."""
    weights = state("vit_tiny")
    rows, columns = np.divmod(np.arange(14 * 14), 14)
    table = np.zeros((1, 197, 192), np.float32)
    table[0, 1:, 0] = rows / 14
    table[0, 1:, 1] = columns / 14
    weights["pos_embed"] = table
    write_state(tmp_path / "linear.pth", weights)
    converted, _ = convert(tmp_path / "linear.pth", "vit_tiny", adapt=True)
    grid = np.asarray(converted.variables["params"]["pos_embed"])[0, 1:, :2].reshape(16, 8, 2)
    np.testing.assert_allclose(np.diff(grid[3:-3, :, 0], axis=0), 1 / 16, atol=5e-3)
    np.testing.assert_allclose(np.diff(grid[:, 2:-2, 1], axis=1), 1 / 8, atol=1e-2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["import", "{tmp}/no.pth", "{tmp}/o.safetensors", "--backbone=resnet18"],
            "no.pth: not there; name a file",
        ),
        (["import", "{tmp}/w.pth", "{tmp}/o.safetensors", "--backbone=resnet19"], "did you mean resnet18"),
        (
            ["import", "{tmp}/w.pth", "{tmp}/o.safetensors", "--backbone=swin_tiny"],
            "w.pth for swin_tiny: the weights do not fit: 171 missing",
        ),
        (["import", "{tmp}/w.pth", "{tmp}/o.pth", "--backbone=resnet18"], "safetensors; give OUT that ending"),
        (["export", "{tmp}/plain.safetensors", "{tmp}/o.pth"], "does not say what it is weights of"),
        (["export", "{tmp}/w.pth", "{tmp}/o.pth"], "does not say what it is weights of"),
        (["export", "{tmp}/ours.safetensors", "{tmp}/o.pth", "--fused"], "no branches to fuse"),
        (["export", "{tmp}/ours.safetensors", "{tmp}/o.onnx"], "name a .pth or .safetensors"),
        (["export", "{tmp}/ours.safetensors", "{tmp}/o.safetensors", "--layout=reidzoo"], "give OUT that ending"),
        (["zoo", "resnet"], "did you mean resnet"),
    ],
)
def test_mistakes_are_answered_with_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_state(tmp_path / "w.pth", state("resnet18"))
    write_state(tmp_path / "plain.safetensors", state("resnet18"))
    if "{tmp}/ours.safetensors" in arguments:
        main(["import", str(tmp_path / "w.pth"), str(tmp_path / "ours.safetensors"), "--backbone=resnet18"])
    capsys.readouterr()
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("cion: ") and message in error and error.count("\n") == 1
    assert not any(tmp_path.glob("o.*"))
