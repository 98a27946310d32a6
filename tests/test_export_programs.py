"""Networks in other hands: StableHLO and ONNX give the features that `cion embed` stores, of any number of images."""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shallow
from cion_jax.cli import main
from cion_jax.errors import UserError
from cion_jax.export.program import card
from cion_jax.export.stablehlo import stablehlo

pytest.importorskip("flatbuffers")
SMALL = "resnet10_half_ibn"
#: Both formats of a network are compared in one process, with the same features.
NAMES = [
    pytest.param(name, marks=pytest.mark.xdist_group(f"export {name}"))
    for name in (*shallow.FAMILIES, shallow.FINE_TUNED)
]


def bytes_of(name: str) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(shallow.variables(name)))


def needed_bytes(name: str) -> int:
    """Without rows of classifiers, which no feature needs."""
    classes = shallow.variables(name)["params"]
    unused = sum(leaf.nbytes for key, leaf in jax.tree_util.tree_leaves_with_path(classes) if "classifier" in str(key))
    return bytes_of(name) - unused


def largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_stablehlo_gives_the_same_features(name: str) -> None:
    artefact = stablehlo(shallow.network(name), shallow.variables(name))
    assert len(artefact) < 1.1 * bytes_of(name) + 2**19, "one copy of the weights serves all platforms"
    exported = jax.export.deserialize(bytearray(artefact))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    pixels = shallow.pixels(name)
    compiled = jax.jit(exported.call).lower(pixels).compile()
    text = compiled.as_text()
    assert "conditional" not in text, "a CPU has its own forms only"
    # FastViT's last convolution makes two channels of each, for which a CPU has no form of its own.
    assert ("feature_group_count" in text) == name.startswith("fastvit")
    assert largest(np.asarray(compiled(pixels)), shallow.features(name)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_onnx_gives_the_same_features(name: str) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from cion_jax.export.onnx.program import onnx_model

    network = shallow.network(name)
    model = onnx_model(network, shallow.variables(name), card(network, "none"))
    assert len(model) < 1.1 * needed_bytes(name) + 2**19, "what is folded is not kept twice"
    session = runtime.InferenceSession(model)
    pixels, expected = shallow.pixels(name), shallow.features(name)
    for images in (3, 1):
        (features,) = session.run(None, {"pixels": pixels[:images]})
        assert features.shape == expected[:images].shape and largest(features, expected[:images]) < 1e-4


def test_accelerators_get_xlas_own_convolutions_from_the_same_artefact() -> None:
    artefact = stablehlo(shallow.network("convnext_tiny"), shallow.variables("convnext_tiny"))
    module = jax.export.deserialize(bytearray(artefact)).mlir_module()
    assert "feature_group_count = 96" in module  # of the first depthwise one


def test_an_artefact_needs_jax_alone(tmp_path: Path) -> None:
    (tmp_path / "a.stablehlo").write_bytes(stablehlo(shallow.network(SMALL), shallow.variables(SMALL)))
    np.save(tmp_path / "pixels.npy", shallow.pixels(SMALL)[:2])
    script = """
import sys
import numpy as np
from jax import export
call = export.deserialize(bytearray(open("a.stablehlo", "rb").read())).call
np.save("features.npy", call(np.load("pixels.npy")))
assert not {name.split(".")[0] for name in sys.modules} & {"cion_jax", "flax"}
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert largest(np.load(tmp_path / "features.npy"), shallow.features(SMALL)[:2]) < 1e-6


def test_the_card_says_how_to_call_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = shallow.saved(shallow.FINE_TUNED, tmp_path / "ours.safetensors")
    out = tmp_path / "people.stablehlo"
    assert main(["export", str(weights), str(out), "--format=stablehlo"]) == 0
    assert f"{out}: {SMALL} as stablehlo; {out}.json says" in capsys.readouterr().out
    noted = json.loads((tmp_path / "people.stablehlo.json").read_text())
    assert (noted["network"], noted["fine_tuned_by"], noted["fused"]) == (SMALL, "mgn", False)
    assert noted["input"]["shape"] == ["batch", 96, 32, 3] and noted["input"]["type"] == "uint8"
    assert noted["output"]["shape"] == ["batch", 2048]
    assert noted["inside"]["mean"] == [*shallow.network(shallow.FINE_TUNED).mean]
    assert noted["weights_sha256"] == sha256(weights.read_bytes()).hexdigest()
    exported = jax.export.deserialize(bytearray(out.read_bytes()))
    assert [*map(str, exported.in_avals[0].shape)] == [*map(str, noted["input"]["shape"])]
    assert [*map(str, exported.out_avals[0].shape)] == [*map(str, noted["output"]["shape"])]


def test_onnx_has_the_card_inside_too(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    weights = shallow.saved(SMALL, tmp_path / "ours.safetensors")
    assert main(["export", str(weights), str(tmp_path / "people.onnx"), "--format=onnx"]) == 0
    noted = json.loads((tmp_path / "people.onnx.json").read_text())
    inside = runtime.InferenceSession(tmp_path / "people.onnx").get_modelmeta().custom_metadata_map
    assert inside["network"] == noted["network"] and json.loads(inside["input"]) == noted["input"]
    assert {*inside} == {*noted}


def test_what_onnx_has_no_operator_for_is_said() -> None:
    pytest.importorskip("onnx")
    from cion_jax.export.onnx.graph import Graph
    from cion_jax.export.onnx.program import convert

    (batch,) = jax.export.symbolic_shape("batch")
    traced = jax.make_jaxpr(jnp.sort)(jax.ShapeDtypeStruct((batch, 3), jnp.uint8))
    graph = Graph("pixels", batch)
    with pytest.raises(UserError, match="no operator of ONNX is known for JAX's 'sort'; export with --format stable"):
        convert(graph, traced, [graph.pixels])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["o.onnx", "--format=stablehlo"], "o.onnx: --format stablehlo writes .stablehlo files; give OUT that ending"),
        (["o.pth", "--format=onnx"], "o.pth: --format onnx writes .onnx files; give OUT that ending"),
        (["o.stablehlo"], "name a .pth or .safetensors file, or add --format stablehlo"),
        (["o.onnx", "--format=onnx", "--layout=reidzoo"], "--format onnx has no keys to lay out; leave --layout reid"),
        (["o.onnx", "--format=onnx", "--fused"], "no branches to fuse"),
        (["o.onnx", "--format=onnx", "missing"], "o.onnx: onnx is not installed; pip install 'cion-jax[onnx]'"),
        (["o.stablehlo", "--format=stablehlo", "missing"], "flatbuffers is not installed; pip install 'cion-jax[stab"),
    ],
)
def test_mistakes_are_answered_with_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "onnx" in message:
        pytest.importorskip("onnx")
    if "missing" in arguments:
        for package in ("onnx", "flatbuffers"):
            monkeypatch.setitem(sys.modules, package, None)
    weights = shallow.saved(SMALL, tmp_path / "ours.safetensors")
    out, *options = [argument for argument in arguments if argument != "missing"]
    assert main(["export", str(weights), str(tmp_path / out), *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("cion: ") and message in error and error.count("\n") == 1
    assert not any(tmp_path.glob("o.*"))
