"""Fine-tuning as a run: it goes on to the last bit, is the same on eight devices, and its weights are of use."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.config import CLUSTER_CONTRAST_AUGMENTATION, Augmentation, Bnneck, ClusterContrast, Mgn
from cion_jax.data.images import resize
from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.evaluate.embed import embed_all, unit_features
from cion_jax.evaluate.feature_store import read_features
from cion_jax.finetune.bnneck import BNNeck
from cion_jax.finetune.step import Labelled
from cion_jax.models.zoo import backbone
from cion_jax.run.finetuning import FinetuningMethod, finetuning, network_of
from cion_jax.run.sharding import make_mesh
from cion_jax.weights.file import Weights, load, save
from cion_jax.weights.foreign import read_metadata, read_state
from finetuned import COMMANDS, TOY, cion, killed_at, rows, stand_in
from weight_files import assert_same

pytestmark = pytest.mark.xdist_group("finetuning")  # one after the other: they share compiled steps


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)


@pytest.fixture(scope="module")
def whole(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each method. Not to be written to."""
    folder = tmp_path_factory.mktemp("finetuned")
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        for name, command in COMMANDS.items():
            assert cion(command, TOY, dataset, folder / name) == 0
    return {name: folder / name for name in COMMANDS}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name in ("mgn", "dbscan") else pytest.param(name, marks=pytest.mark.whole) for name in COMMANDS]
)
def test_a_killed_run_goes_on_to_the_same_bits(
    name: str, whole: dict[str, Path], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across the thaw of MGN, at the fifth step, and across new clusters."""
    for step in (1, 4, 9):
        assert killed_at(monkeypatch, step, COMMANDS[name], TOY, dataset, tmp_path / "out") == 130
    assert cion(COMMANDS[name], TOY, dataset, tmp_path / "out") == 0
    assert rows(tmp_path / "out") == rows(whole[name])
    assert [row["step"] for row in rows(whole[name])] == [*range(12)]
    for file in whole[name].glob("*.safetensors"):
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    for file in whole[name].glob("labels/*.npz"):
        again = np.load(tmp_path / "out" / "labels" / file.name)["labels"]
        np.testing.assert_array_equal(again, np.load(file)["labels"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bnneck", "mgn", "cluster-contrast"])
def test_a_step_gives_what_it_takes(name: str) -> None:
    """To the weakness of types: or the second step would be compiled anew."""
    usual = {"bnneck": Bnneck(), "mgn": Mgn(), "cluster-contrast": ClusterContrast()}[name]
    settings = replace(usual, batch=8, instances=4, image_size=(48, 16))
    body = backbone(TOY, image_size=(48, 16))
    labels = np.arange(8)
    method = FinetuningMethod(settings, network_of(settings, body, 8), body.shapes(), labels, None, 8 * ("clu" in name))
    state = jax.eval_shape(method.init, jax.random.key(0), method.start)
    images = jax.ShapeDtypeStruct((1, 8, 48, 16, 3), np.uint8)
    inputs = Labelled(images, jax.ShapeDtypeStruct((1, 8), np.int32))  # type: ignore[arg-type]
    after, _ = jax.eval_shape(method.step(4, make_mesh(1, 1)), state, inputs, method.values_at(2, 0, 1))
    for before, now in zip(*map(jax.tree.leaves, (state, after)), strict=True):
        assert (before.shape, before.dtype, before.weak_type) == (now.shape, now.dtype, now.weak_type)


@pytest.mark.slow
def test_frozen_parts_stand_still_until_the_thaw(dataset: Path, tmp_path: Path) -> None:
    """One epoch and a step: what came with the backbone does not move, heads do."""
    command = COMMANDS["mgn"].replace("--epochs 3", "--epochs 1")
    assert cion(command, TOY, dataset, tmp_path) == 0
    state = load(tmp_path / "finetuned.safetensors").variables
    begin = backbone(TOY).init(jax.random.key(0))
    for part, name, where in (("backbone", "0", "conv1"), ("b1", "1.0", "layer4.0"), ("b3", "1.0", "layer4.0")):
        for now, before in zip(
            *map(jax.tree.leaves, (state["params"][part][name], begin["params"][where])), strict=True
        ):
            np.testing.assert_array_equal(now, before)
    assert np.ptp(state["params"]["b1_head"]["bottleneck.1"]["scale"]) > 0
    assert np.abs(state["batch_stats"]["heads_extra_bn_b1"]["mean"]).max() > 0


@pytest.mark.slow
def test_clusters_are_made_anew_and_fill_the_memory(whole: dict[str, Path], dataset: Path) -> None:
    records = Records(dataset)
    for name in ("dbscan", "denoise"):
        files = sorted((whole[name] / "labels").glob("*.npz"))
        assert [file.stem for file in files] == ["epoch-00000", "epoch-00001", "epoch-00002"]
        labels = [read_labelling(file, records.card.fingerprint, len(records)) for file in files]
        assert all(each.max() >= 3 for each in labels)
        assert name == "denoise" or not np.array_equal(labels[0], labels[2])


@pytest.mark.slow
def test_the_best_epoch_is_kept(whole: dict[str, Path]) -> None:
    scores = [row["validation_mAP"] for row in rows(whole["bnneck"]) if "validation_mAP" in row]
    assert len(scores) == 3
    last, best = ((whole["bnneck"] / f"{name}.safetensors").read_bytes() for name in ("finetuned", "best"))
    assert (last == best) == (np.argmax(scores) == 2)
    assert not (whole["mgn"] / "best.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bnneck", "mgn", "dbscan"])
def test_weights_come_back_and_go_through_pytorch_files(
    name: str, whole: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    """Exported as the published code saves them, imported, embedded: the same bits, and features of their own scale."""
    own = whole[name] / "finetuned.safetensors"
    assert cion("export", own, tmp_path / "out.pth") == 0
    size = load(own).network.image_size
    into = tmp_path / "in.safetensors", "--backbone", TOY, "--image-size", *size
    assert cion("import", tmp_path / "out.pth", *into) == 0
    again = tmp_path / "in.safetensors"
    noted = {name: text for name, text in read_metadata(own).items() if name != "data"}  # a .pth does not say it
    assert read_metadata(again) == noted and load(own).origin == {"data": Records(dataset).card.fingerprint}
    assert_same(read_state(again), read_state(own))
    assert cion("embed", own, dataset, tmp_path / "features", "--split", "query") == 0
    loaded = load(own)
    features = embed_all(loaded.network, loaded.variables, Records(dataset, "query"), image_size=size)
    np.testing.assert_allclose(read_features(tmp_path / "features", "query")[0], features, atol=1e-6)
    assert features.shape[1] == loaded.network.width(size)


@pytest.mark.slow
def test_a_network_sees_pixels_by_its_own_scale_and_either_side_of_the_neck(dataset: Path, tmp_path: Path) -> None:
    body = backbone(TOY, image_size=(32, 16))
    records = Records(dataset, "query")
    found = {}
    for feature in ("before", "after"):
        network = BNNeck(body, 5, feature)
        variables = network.begin(jax.random.key(1), body.init(jax.random.key(0)))
        mean = np.linspace(-1, 1, network.width((32, 16)), dtype=np.float32)
        variables["batch_stats"]["bottleneck"]["mean"] = mean
        path = tmp_path / f"{feature}.safetensors"
        save(path, Weights(network, variables))
        assert load(path).network == network
        found[feature] = embed_all(network, variables, records, image_size=(32, 16))
    assert np.abs(found["before"] - found["after"]).max() > 0.1
    pixels = np.stack([records.pixels(number) for number in range(len(records))]) / 255
    usual = CLUSTER_CONTRAST_AUGMENTATION
    other = replace(body, mean=usual.mean, std=usual.std)
    variables = body.init(jax.random.key(0))
    expected = np.asarray(jax.jit(other.apply)(variables, ((pixels - 0.5) / 0.5).astype(np.float32)))
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(embed_all(other, variables, records, image_size=(32, 16)), expected, atol=2e-6)


@pytest.mark.parametrize("method", ["bnneck", "mgn", "adapt"])
def test_a_network_sees_images_resized_as_it_is_tested(method: str, dataset: Path, tmp_path: Path) -> None:
    """Bicubic where it was so trained, but for the published bnneck."""
    usual = {"bnneck": Bnneck(validation=0), "mgn": Mgn(validation=0), "adapt": ClusterContrast()}[method]
    pictures = Augmentation(size=(48, 16), pad=2)
    settings = replace(usual, backbone=TOY, batch=8, instances=4, image_size=(48, 16), augmentation=pictures)
    made = finetuning(replace(settings, resize="bicubic"), dataset)
    variables = made.model.begin(jax.random.key(0), made.start)
    save(tmp_path / "weights.safetensors", Weights(made.model, variables))
    network = load(tmp_path / "weights.safetensors").network
    assert network == made.model
    records = Records(dataset, "query")
    kernel = "bilinear" if method == "bnneck" else "bicubic"
    pixels = np.stack([resize(records.pixels(number), 48, 16, kernel) for number in range(len(records))])
    expected = unit_features(network, variables, pixels)
    np.testing.assert_allclose(embed_all(network, variables, records, image_size=(48, 16)), expected, atol=1e-5)


def test_adapting_begins_with_what_its_weights_see(dataset: Path, tmp_path: Path) -> None:
    """Before the first step, pooled by the mean, features are those of the backbone; by another scale they are not.
    In the step it is the same scale, whatever that of augmentation is."""
    body = backbone(TOY, image_size=(32, 16))
    path = tmp_path / "weights.safetensors"
    save(path, Weights(body, body.init(jax.random.key(0))))
    records = Records(dataset, "query")
    expected = embed_all(body, load(path).variables, records, image_size=(32, 16))
    pictures = Augmentation(size=(32, 16), pad=2)
    usual = ClusterContrast(weights=path, batch=8, instances=4, image_size=(32, 16), exponent=1, augmentation=pictures)

    def begun(settings: ClusterContrast) -> tuple[FinetuningMethod, np.ndarray]:
        method = finetuning(settings, dataset)
        variables = method.model.begin(jax.random.key(0), method.start)
        return method, embed_all(method.model, variables, records, image_size=(32, 16))

    assert np.abs(begun(replace(usual, pixel_scale="augmentation"))[1] - expected).max() > 1e-3
    images = np.random.default_rng(0).integers(256, size=(1, 8, 32, 16, 3), dtype=np.uint8)
    inputs = Labelled(jnp.array(images), jnp.arange(8)[None] // 4)
    losses = []
    for mean in (pictures.mean, (0.1, 0.2, 0.3)):
        method, features = begun(replace(usual, augmentation=replace(pictures, mean=mean)))
        np.testing.assert_allclose(features, expected, atol=1e-5)
        state = method.init(jax.random.key(0), method.start)
        state = state._replace(memory=state.memory.at[:2].set(features[:2]))
        step = jax.jit(method.step(4, make_mesh(1, 1)))
        losses.append(float(step(state, inputs, method.values_at(0, 0, 1))[1]["loss"]))
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_fine_tuned_network_begins_another_training(whole: dict[str, Path], dataset: Path, tmp_path: Path) -> None:
    command = COMMANDS["dbscan"].replace("--epochs 3", "--epochs 1")
    assert cion(command, whole["bnneck"], dataset, tmp_path / "out") == 0
    assert load(tmp_path / "out" / "finetuned.safetensors").network.method == "cluster-contrast"
    assert cion(command, whole["mgn"], dataset, tmp_path / "no") == 1
