"""Features: what the network gives for each image, in order, whatever the batches and devices."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.evaluate.embed import batched, embed, embed_all, embedder
from cion_jax.models.zoo import Backbone, Variables, backbone
from embedding import SIZE, TINY, Tiny, by_hand, decoded
from processes import python


@pytest.fixture(scope="module")
def variables() -> Variables:
    return TINY.init(jax.random.key(0))


@pytest.mark.parametrize("batch", [1, 64, 100, 333])
def test_features_are_those_of_the_network_for_any_batch(batch: int, dataset: Path, variables: Variables) -> None:
    records = Records(dataset)
    result = embed_all(TINY, variables, records, image_size=SIZE, batch=batch)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, by_hand(variables, decoded(records)), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(result, axis=1), 1, rtol=1e-6)


def test_mirror_images_are_added_before_the_length_is_made_one(dataset: Path, variables: Variables) -> None:
    records = Records(dataset, "query")
    result = embed_all(TINY, variables, records, image_size=SIZE, flip=True)
    np.testing.assert_allclose(result, by_hand(variables, decoded(records), flip=True), atol=2e-6)
    assert np.abs(result - by_hand(variables, decoded(records))).max() > 0.01


def test_bfloat16_is_used_where_it_is_asked_for(dataset: Path, variables: Variables) -> None:
    records = Records(dataset, "query")
    result = embed_all(TINY, variables, records, image_size=SIZE, precision="bfloat16")
    assert result.dtype == np.float32
    assert 1e-5 < np.abs(result - by_hand(variables, decoded(records))).max() < 0.05


def test_all_batches_splits_and_teachers_are_one_program(dataset: Path, variables: Variables) -> None:
    traced: list[int] = []

    class Traced(Tiny):
        def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
            traced.append(len(x))
            return super().__call__(x, train)

    model = Backbone("traced", "none", "none", (), SIZE, False, Traced(), None)
    for split in ("train", "query"):
        embed_all(model, variables, Records(dataset, split), image_size=SIZE, batch=48)
        variables = jax.tree.map(lambda leaf: leaf * 2, variables)
    assert traced.count(48) == 1


def test_the_next_batch_is_on_its_way_before_one_is_waited_for(dataset: Path) -> None:
    begun: list[int] = []

    def run(pixels: np.ndarray) -> jax.Array:
        begun.append(len(pixels))
        return jnp.full((len(pixels), 4), 0.5)

    records = Records(dataset)
    result = embed(run, records, batched(range(200), 60), image_size=SIZE, batch=60)
    for number in range(1, 5):
        assert len(next(result)) == (60 if number < 4 else 20)
        assert begun == [60] * min(number + 1, 4)


ON_DEVICES = """
import sys
import jax, numpy as np
from cion_jax.data.records import Records
from cion_jax.evaluate.embed import embedder, embed_all
from embedding import SIZE, TINY
variables = TINY.init(jax.random.key(0))
shared = embedder(TINY, variables)(np.ones((16, *SIZE, 3), np.uint8)).sharding
assert jax.device_count() == 8 and shared.shard_shape((16, 6)) == (2, 6), shared
np.save(sys.argv[2], embed_all(TINY, variables, Records(sys.argv[1]), image_size=SIZE, batch=30))
"""


def test_eight_devices_share_the_images_and_find_the_same(dataset: Path, tmp_path: Path, variables: Variables) -> None:
    devices = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    assert python(ON_DEVICES, dataset, tmp_path / "eight.npy", XLA_FLAGS=devices) == 0
    expected = embed_all(TINY, variables, Records(dataset), image_size=SIZE)
    np.testing.assert_allclose(np.load(tmp_path / "eight.npy"), expected, atol=2e-6)


def test_an_image_without_finite_features_is_named(dataset: Path, variables: Variables) -> None:
    records = Records(dataset)
    run = embedder(TINY, variables)
    spoiled = iter([False, True, False])  # one batch after the other

    def broken(pixels: np.ndarray) -> jax.Array:
        return run(pixels).at[7, 3].set(jnp.nan) if next(spoiled) else run(pixels)

    result = embed(broken, records, batched(range(200), 50), image_size=SIZE, batch=50)
    next(result)
    with pytest.raises(UserError, match=r"image 57 of split train\): the network gives no finite feature"):
        next(result)
    with pytest.raises(UserError, match=r"image 0 of split train"):  # one that has no direction
        embed_all(TINY, jax.tree.map(jnp.zeros_like, variables), records, image_size=SIZE)


@pytest.mark.parametrize(
    ("name", "size"), [("edgenext_x_small", (16, 16)), ("vit_tiny", (8, 8)), ("convnext_tiny", (3, 2)),
                       ("resnet18", (0, 0)), ("volo_d1", (16, 8)), ("fastvit_s12", (1, 1))]
)  # fmt: skip
def test_a_size_that_a_family_cannot_take_is_told(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=f"{name} cannot take images of {size[0]}x{size[1]}"):
        backbone(name).width(size)


def test_sizes_that_families_do_take_pass() -> None:
    for name, size, wide in [("vit_tiny", (64, 32), 192), ("resnet18", (7, 5), 512), ("volo_d1", (96, 48), 384)]:
        assert backbone(name).width(size) == wide
