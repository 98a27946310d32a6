"""Augmentation of fine-tuning: pixels against recorded ones, rectangles against their rule, and rows by themselves."""

import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cion_jax.config import BNNECK_AUGMENTATION, CLUSTER_CONTRAST_AUGMENTATION, MGN_AUGMENTATION, Augmentation, Kernel
from cion_jax.data import images, resample
from cion_jax.data.pixels import normalise, to_float
from cion_jax.finetune.augment import View, augment, choose_rectangle, render, sample
from golden_weights import golden

#: Small, and each picture its own by the noise in it.
SMALL = replace(BNNECK_AUGMENTATION, size=(32, 16), pad=3, erase=1)
#: For View: no box, and what fills it.
NOTHING_ERASED = np.zeros(4, int), np.zeros((1, 1, 3), np.float32)
#: The names of the recorded rectangles, and their rules: smallest and largest area, whether the aspect is log-uniform,
#: and tries.
RULES = {
    "fastreid_erase_384x128": (MGN_AUGMENTATION, (0.02, 0.4), False, 100),
    "transreid_erase_256x128": (BNNECK_AUGMENTATION, (0.02, 1 / 3), True, 10),
    "ccontrast_erase_256x128": (CLUSTER_CONTRAST_AUGMENTATION, (0.02, 0.4), False, 100),
}


def noise(seed: int, height: int = 32, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@cache
def recorded() -> dict[str, np.ndarray]:
    return golden("finetune/augment")


@pytest.fixture(scope="module")
def make() -> Callable[[np.ndarray, jax.Array], jax.Array]:
    """Small pictures, as a CPU makes them."""
    return jax.jit(partial(augment, settings=SMALL, dtype=jnp.float32, on_cpu=True))


def prepared(images: np.ndarray, settings: Augmentation) -> np.ndarray:
    """With everything off that is random."""
    still = replace(settings, flip=0, pad=0, erase=0)
    return np.asarray(jax.jit(augment, static_argnums=(2, 3))(images, jax.random.key(0), still, jnp.float32))


# Pixels.


def resized(image: np.ndarray, size: tuple[int, int], kernel: Kernel, flip: bool = False) -> np.ndarray:
    resize = jax.jit(resample.resize, static_argnums=(2, 4))
    return np.asarray(resize(image, np.array([0, 0, *image.shape[:2]]), size, flip, kernel)).swapaxes(1, 2)


@pytest.mark.parametrize(
    ("size", "kernel"), [((384, 128), "bicubic"), ((256, 128), "bicubic"), ((256, 128), "bilinear")]
)
def test_resized_images_are_the_recorded_ones_to_the_bit(size: tuple[int, int], kernel: Kernel) -> None:
    """On the device, and on the host."""
    wanted = recorded()[f"resize_{size[0]}x{size[1]}_{kernel}"]
    np.testing.assert_array_equal(resized(recorded()["image"], size, kernel), wanted)
    np.testing.assert_array_equal(images.resize(recorded()["image"], *size, kernel), wanted)


@pytest.mark.parametrize("size", [(96, 40), (41, 61), (100, 37)])
def test_bilinear_resize_is_pillows_where_it_shrinks(size: tuple[int, int]) -> None:
    """Columns come first; Pillow 13 begins with the cheaper axis, so it is asked for one after the other."""
    wanted = Image.fromarray(recorded()["image"])
    for step in [(size[1], wanted.height), size[::-1]]:
        wanted = wanted.resize(step, Image.Resampling.BILINEAR)
    far = np.abs(resized(recorded()["image"], size, "bilinear") - np.asarray(wanted, np.float32))
    assert far.max() <= 1 and (far > 0).mean() < 0.02  # where a mean ends in a half


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(256, 128), (384, 128), (97, 33)])
def test_at_its_own_size_an_image_stays_as_it_is(size: tuple[int, int], kernel: Kernel) -> None:
    image = noise(0, *size)
    np.testing.assert_array_equal(resized(image, size, kernel), image)
    np.testing.assert_array_equal(resized(image, size, kernel, flip=True), image[:, ::-1])


@pytest.mark.parametrize(
    ("flip", "corner", "name"), [(False, (3, 17), "pad10_crop_i3_j17"), (True, (20, 0), "flip_pad10_crop_i20_j0")]
)
def test_flipped_framed_and_cropped_images_are_the_recorded_ones(
    flip: bool, corner: tuple[int, int], name: str
) -> None:
    view = View(np.array(flip), np.array(corner), *NOTHING_ERASED)
    picture = jax.jit(render, static_argnums=2)(recorded()["image"], view, BNNECK_AUGMENTATION)
    np.testing.assert_allclose(picture, (recorded()[name] / 255 - 0.5) / 0.5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "name"),
    [(CLUSTER_CONTRAST_AUGMENTATION, "tensor_half_first8rows"), (MGN_AUGMENTATION, "tensor_fastreid_first8rows")],
)
def test_pictures_with_nothing_random_are_as_recorded(settings: Augmentation, name: str) -> None:
    (picture,) = prepared(recorded()["image"][None], settings)
    assert picture.shape == (*settings.size, 3)
    np.testing.assert_allclose(picture[:8].transpose(2, 0, 1), recorded()[name], atol=1e-6)


# Rectangles.


def rectangle_by_the_rule(
    draw: random.Random, height: int, width: int, area: tuple[float, float], log_uniform: bool, tries: int
) -> tuple[int, int, int, int]:
    """Top, left, height and width; zeros where nothing is erased."""
    if draw.uniform(0, 1) < 0.5:
        for _ in range(tries):
            pixels = draw.uniform(*area) * height * width
            low, high = 0.3, 1 / 0.3
            aspect = math.exp(draw.uniform(math.log(low), math.log(high))) if log_uniform else draw.uniform(low, high)
            h, w = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
            if h < height and w < width:
                return draw.randint(0, height - h), draw.randint(0, width - w), h, w
    return 0, 0, 0, 0


def assert_same_distribution(ours: np.ndarray, theirs: np.ndarray, height: int, width: int) -> None:
    """How often something is erased (4 standard deviations), and where, how large and of which shape (Kolmogorov and
    Smirnov's bound, one error in a thousand)."""
    erased = [boxes[boxes[:, 2] > 0].astype(float) for boxes in (ours, theirs)]
    (n, all_ours), (m, all_theirs) = ((len(some), len(boxes)) for some, boxes in zip(erased, (ours, theirs)))  # noqa: B905
    assert abs(n / all_ours - m / all_theirs) < 4 * 0.5 * math.sqrt(1 / all_ours + 1 / all_theirs)
    top, left, h, w = np.concatenate(erased).T
    for values in (top, left, h, w, h * w, h / w, top / (height - h), left / (width - w)):
        at = np.unique(values)
        shares = [np.searchsorted(np.sort(part), at, side="right") / len(part) for part in (values[:n], values[n:])]
        assert np.abs(shares[0] - shares[1]).max() < 1.95 * math.sqrt(1 / n + 1 / m)


@pytest.mark.parametrize("name", RULES)
def test_erased_rectangles_are_distributed_by_the_published_rule(name: str) -> None:
    """The rule as we understand it makes the recorded rectangles one by one, and many that ours are held against."""
    settings, *rule = RULES[name]
    height, width = settings.size
    by_the_rule = [rectangle_by_the_rule(random.Random(seed), height, width, *rule) for seed in range(40)]
    wanted = np.where(recorded()[name] < 0, 0, recorded()[name])
    np.testing.assert_array_equal(by_the_rule, wanted)
    count = 10_000
    draw = jax.jit(jax.vmap(lambda key: sample(key, settings).box))
    ours = np.asarray(draw(jax.random.split(jax.random.key(0), count)))
    assert ((ours[:, :2] >= 0) & (ours[:, :2] + ours[:, 2:] <= settings.size)).all()
    many = random.Random(0)
    theirs = np.array([rectangle_by_the_rule(many, height, width, *rule) for _ in range(count)])
    assert_same_distribution(ours, theirs, height, width)
    assert_same_distribution(ours, wanted, height, width)
    area, same = (boxes[boxes[:, 2] > 0, 2:].prod(axis=1).mean() for boxes in (ours, theirs))
    assert abs(area / same - 1) < 0.04  # 4 standard deviations: an area's is half its mean, of 5,000 in each


def test_the_first_rectangle_that_is_smaller_than_the_picture_is_taken() -> None:
    settings = replace(MGN_AUGMENTATION, size=(256, 128), erase_area=(0, 1), erase_aspect=(1, 3), erase_tries=3)
    areas, aspects = np.array([1.0, 0.5, 0.25]), np.array([0.5, 0.0, 0.5])  # 256 x 128 (as wide), 128 x 128, 128 x 64
    too_large, place = np.ones(3), np.array([0.5, 0.999])

    def chosen(areas: np.ndarray) -> list[int]:
        return choose_rectangle(np.concatenate([areas, aspects, place]), settings).tolist()

    assert chosen(areas) == [64, 64, 128, 64]
    assert chosen(np.array([1.0, 0.245, 0.25])) == [83, 38, 90, 90]
    assert chosen(too_large) == [0, 0, 0, 0]


@pytest.mark.parametrize("settings", [MGN_AUGMENTATION, BNNECK_AUGMENTATION, CLUSTER_CONTRAST_AUGMENTATION])
def test_rectangles_are_filled_as_published_and_nothing_else_changes(settings: Augmentation) -> None:
    settings = replace(settings, size=(64, 32), erase=1, flip=0, pad=0)
    images, key = np.stack([noise(seed, 64, 32) for seed in range(16)]), jax.random.key(0)
    erased = np.asarray(jax.jit(partial(augment, settings=settings, dtype=jnp.float32))(images, key))
    whole = prepared(images, settings)  # there is nothing to resize
    boxes = jax.jit(jax.vmap(lambda key: sample(key, settings).box))(jax.random.split(key, 16))
    fills = []
    for picture, before, (top, left, height, width) in zip(erased, np.asarray(whole), np.asarray(boxes), strict=True):
        inside = np.zeros((64, 32), bool)
        inside[top : top + height, left : left + width] = True
        np.testing.assert_allclose(picture[~inside], before[~inside], atol=1e-6)
        fills.append(picture[inside])
    filled = np.concatenate(fills)
    assert len(filled) > 3000
    if settings.erase_fill == "noise":
        error = 4 / math.sqrt(filled.size)
        assert abs(filled.mean()) < error and abs(filled.std() - 1) < error
        assert np.abs(np.corrcoef(filled.T) - np.eye(3)).max() < 4 / math.sqrt(len(filled))
        assert len(np.unique(filled)) > 0.99 * filled.size
    elif settings.erase_fill == "black":
        np.testing.assert_allclose(filled, filled[:1].repeat(len(filled), 0), atol=0)
        np.testing.assert_allclose(filled[0], [-123.675 / 58.395, -116.28 / 57.12, -103.53 / 57.375], rtol=1e-6)
    else:
        np.testing.assert_array_equal(filled, np.broadcast_to(recorded()["ccontrast_erase_value"], filled.shape))


# The other draws.


def test_flips_and_places_are_as_likely_as_set_and_go_with_nothing() -> None:
    settings = replace(BNNECK_AUGMENTATION, size=(32, 16))
    count, draw = 8000, jax.jit(jax.vmap(lambda key: sample(key, settings)))
    flip, corner, box, fill = jax.tree.map(np.asarray, draw(jax.random.split(jax.random.key(1), count)))
    assert abs(flip.mean() - 0.5) < 4 * 0.5 / math.sqrt(count)
    for places in corner.T:
        counts = np.bincount(places, minlength=21)
        assert len(counts) == 21
        assert ((counts - count / 21) ** 2 / (count / 21)).sum() < 45.3  # chi-squared of 20, one error in a thousand
    columns = np.stack([flip, *corner.T, box[:, 2] > 0, box[:, 0], box[:, 1], fill[:, 0, 0, 0], fill[:, 9, 9, 1]])
    correlation = np.corrcoef(columns.astype(float)) - np.eye(len(columns))
    correlation[3:6, 3:6] = 0  # no place where nothing is erased
    assert np.abs(correlation).max() < 5 / math.sqrt(count)


def test_with_everything_off_training_shows_what_testing_shows() -> None:
    """Images of the size that is asked for are only brought to a network's scale, as whoever embeds them does."""
    images = np.stack([noise(0), noise(1)])
    settings = replace(MGN_AUGMENTATION, size=images.shape[1:3])
    expected = normalise(to_float(images), settings.mean, settings.std)
    np.testing.assert_allclose(prepared(images, settings), expected, atol=1e-6)


# Rows, keys and devices.


def test_equal_images_become_different_pictures_and_a_key_always_the_same(make: Callable) -> None:
    images = np.stack([noise(0)] * 8)
    first, again, other = (np.asarray(make(images, jax.random.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(np.concatenate([first, other]).reshape(16, -1), axis=0)) == 16


def test_a_row_depends_on_no_other_row(make: Callable) -> None:
    images, key = np.stack([noise(seed) for seed in range(8)]), jax.random.key(0)
    changed = images.copy()
    changed[np.arange(8) != 2] = noise(9)
    before, after = make(images, key), make(changed, key)
    np.testing.assert_array_equal(before[2], after[2])
    assert (np.asarray(before) != np.asarray(after)).any(axis=(1, 2, 3)).sum() == 7


def test_all_images_at_once_become_what_they_become_one_by_one(make: Callable) -> None:
    images, key = np.stack([noise(seed, 40, 20) for seed in range(8)]), jax.random.key(3)
    at_once = jax.jit(partial(augment, settings=SMALL, dtype=jnp.float32))
    np.testing.assert_allclose(make(images, key), at_once(images, key), atol=1e-6)


def test_bfloat16_pictures_are_the_float32_ones_rounded(make: Callable) -> None:
    images, key = np.stack([noise(seed) for seed in range(8)]), jax.random.key(0)
    short = jax.jit(partial(augment, settings=SMALL, dtype=jnp.bfloat16))(images, key)
    assert short.dtype == jnp.bfloat16
    np.testing.assert_allclose(short.astype(jnp.float32), make(images, key), rtol=1 / 256, atol=1e-5)


_SHARDED = """
import re, sys
from functools import partial
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from cion_jax.finetune.augment import augment
from test_finetune_augment import SMALL, noise

assert jax.device_count() == 8
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
rows = NamedSharding(mesh, PartitionSpec("data"))
images = jax.device_put(np.stack([noise(seed, 40, 20) for seed in range(16)]), rows)
made = []
for on_cpu in (False, True):
    make = partial(augment, settings=SMALL, dtype=jnp.float32, on_cpu=on_cpu)
    program = jax.jit(make, out_shardings=rows).lower(images, jax.random.key(0)).compile()
    assert not re.search("all-gather|all-to-all|all-reduce|collective", program.as_text()), "rows are sent around"
    made.append(program(images, jax.random.key(0)))
np.savez(sys.argv[1], *made)
"""


@pytest.mark.slow
def test_eight_devices_make_the_pictures_of_one_and_send_nothing_around(make: Callable, tmp_path: Path) -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", _SHARDED, str(tmp_path / "made.npz")], check=True, env=environment)
    images = np.stack([noise(seed, 40, 20) for seed in range(16)])
    wanted = make(images, jax.random.key(0))
    with np.load(tmp_path / "made.npz") as sharded:
        np.testing.assert_allclose(sharded["arr_0"], wanted, atol=1e-6)
        np.testing.assert_array_equal(sharded["arr_1"], wanted)
