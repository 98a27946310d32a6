"""Multi-crop: every step against Pillow, every draw against its rule, and rows that know nothing of each other.

Pillow computes partly in fixed point and we in float32: where both must come to a whole number, results differ by at
most one level (of 255) at a few pixels. The hue is rounded in between, to one of 256 turns: a pixel that falls on the
other side there moves by up to 6 levels in one channel.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from cion_jax.cli import main
from cion_jax.config import MEAN, STD, Crops
from cion_jax.data import augment, resample
from cion_jax.data.augment import View, multi_crop, sample
from cion_jax.data.records import Records
from compiling import USUAL

#: Small, and with every step likely.
SMALL = Crops(
    global_size=(64, 32),
    local_size=(32, 16),
    local_crops=3,
    grey=0.3,
    jitter_strength=(0.4, 0.4, 0.4, 0.2),
    blur=(1.0, 0.5, 0.5),
    solarize=0.6,
)
ORDERS = np.array(list(permutations(range(4))))


def smooth(seed: int, height: int = 64, width: int = 32) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def noise(seed: int, height: int = 64, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_lines(pixels: np.ndarray) -> jax.Array:
    return jnp.asarray(pixels, jnp.float32).swapaxes(-1, -2)


def as_planes(pixels: np.ndarray) -> tuple[jax.Array, ...]:
    return tuple(jnp.moveaxis(jnp.asarray(pixels, jnp.float32), -1, 0))


def from_planes(planes: tuple[jax.Array, ...]) -> jax.Array:
    return jnp.stack(planes, axis=-2)


def difference(ours: jax.Array, theirs: Image.Image | np.ndarray) -> np.ndarray:
    """Of a picture (h, 3, w), which must be made of whole numbers from 0 to 255, and one (h, w, 3)."""
    result = np.asarray(ours).swapaxes(-1, -2)
    assert ((result >= 0) & (result <= 255) & (result == np.round(result))).all()
    return np.abs(result - np.asarray(theirs, np.float32))


@pytest.fixture(scope="module")
def crop() -> Callable[[np.ndarray, jax.Array], tuple[jax.Array, jax.Array]]:
    """The small crops of four images, as a CPU makes them."""
    return jax.jit(partial(multi_crop, crops=SMALL, dtype=jnp.float32, on_cpu=True))


@pytest.fixture(scope="module")
def draws() -> tuple[View, View]:
    """The default views of 6,000 images of 256x128."""
    draw = jax.jit(jax.vmap(lambda key: sample(key, 256, 128, Crops())))
    return jax.tree.map(np.asarray, draw(jax.random.split(jax.random.key(0), 6000)))


# Each step against Pillow.


@pytest.mark.parametrize("on_cpu", [False, True], ids=["products", "blocks"])
@pytest.mark.parametrize("size", [(128, 64), (64, 32), (36, 20), (160, 80)])
def test_resize_is_crop_and_bicubic_resize(size: tuple[int, int], on_cpu: bool) -> None:
    """On sharp pictures it matters that columns come first: what overshoots is cut off in between. Pillow 13 begins
    with the cheaper axis, so there it is asked for one after the other."""
    boxes = [(0, 0, 128, 64), (3, 5, 117, 57), (80, 40, 19, 11), (127, 63, 1, 1), (20, 0, 108, 22)]
    resize = jax.jit(jax.vmap(lambda image, box, flip: resample.resize(image, box, size, flip, on_cpu=on_cpu)))
    cases = [
        (picture(i, 128, 64), box, flip)
        for i, box in enumerate(boxes)
        for picture in (smooth, noise)
        for flip in (0, 1)
    ]
    result = resize(*(np.array(values) for values in zip(*cases, strict=True)))
    for number, (ours, (image, box, flip)) in enumerate(zip(result, cases, strict=True)):
        top, left, height, width = box
        wanted = Image.fromarray(image).crop((left, top, left + width, top + height))
        is_noise = number % 4 > 1
        for step in [(size[1], height), size[::-1]] if is_noise else [size[::-1]]:
            wanted = wanted.resize(step, Image.Resampling.BICUBIC)
        far = difference(ours, ImageOps.mirror(wanted) if flip else wanted)
        assert far.max() <= 1 and (far.mean() < 0.01 or not is_noise), (box, flip)


def test_brightness_contrast_and_saturation_are_pillows() -> None:
    image = noise(0) // 2
    blend = jax.jit(lambda *inputs: from_planes(augment.blend(*inputs)))
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for kind, enhancer in enumerate(enhancers):
        for factor in (0.0, 0.6, 0.93, 1.0, 1.4):
            far = difference(blend(as_planes(image), kind, factor), enhancer(Image.fromarray(image)).enhance(factor))
            assert far.max() <= 1 and (far > 0).mean() < 0.03, (enhancer, factor)


def turned(image: Image.Image, turn: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    hue = Image.fromarray(np.asarray(hue) + np.array(int(255 * turn)).astype(np.uint8))
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def test_hue_is_turned_as_in_pillows_hsv() -> None:
    image = noise(1, 256, 64)
    image[0, :8] = [[0, 0, 0], [255, 255, 255], [9, 9, 9], [255, 0, 0], [0, 255, 0], [0, 0, 255], [8, 8, 7], [1, 0, 1]]
    turn_hue = jax.jit(lambda *inputs: from_planes(augment.turn_hue(*inputs)))
    for turn in (-0.5, -0.1, 0.001, 0.07, 0.1, 0.4):
        far = difference(turn_hue(as_planes(image), turn), turned(Image.fromarray(image), turn))
        assert far.max() <= 6 and (far > 0).mean() < 0.01, turn
    assert difference(turn_hue(as_planes(image), 0), image).max() == 0


def test_grey_and_solarized_pictures_are_pillows() -> None:
    image = noise(2)
    assert difference(augment.solarize(as_lines(image)), ImageOps.solarize(Image.fromarray(image), 128)).max() == 0
    luminance = np.asarray(Image.fromarray(image).convert("L"))
    np.testing.assert_array_equal(augment.luminance(as_planes(image)), luminance)


@pytest.mark.parametrize("on_cpu", [False, True], ids=["products", "shifts"])
def test_blur_is_pillows_up_to_the_edges(on_cpu: bool) -> None:
    blur = jax.jit(partial(resample.blur, largest_radius=2.5, on_cpu=on_cpu))
    for image in (noise(3), smooth(3)):
        for radius in (0, 0.1, 0.7, 1.4, 1.5, 2.0, 2.5):
            far = difference(
                blur(as_lines(image), radius), Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius))
            )
            assert far.max() <= 1 and (far > 0).mean() < 0.15, radius  # at 1.5 and 2 many a mean ends in a half


def jittered(image: Image.Image, factors: np.ndarray, order: np.ndarray) -> Image.Image:
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for kind in order:
        factor = float(factors[kind])
        image = turned(image, factor) if kind == 3 else enhancers[kind](image).enhance(factor)
    return image


def test_jitter_follows_all_24_orders() -> None:
    image, factors = smooth(4), np.array([1.3, 0.6, 1.4, 0.1], np.float32)
    jitter = jax.jit(jax.vmap(lambda *inputs: from_planes(augment.jitter(*inputs)), (None, None, 0)))
    result = jitter(as_planes(image), factors, ORDERS)
    far = np.stack([difference(f, jittered(Image.fromarray(image), factors, o)) for f, o in zip(result, ORDERS)])  # noqa: B905
    assert far.max() <= 12 and (far > 1).mean() < 0.01  # a hue on the other side, then more contrast and saturation
    pairs = np.abs(np.asarray(result)[:, None] - np.asarray(result)[None]).mean(axis=(2, 3, 4))
    assert (pairs[~np.eye(24, dtype=bool)] > 0).all()  # so that a mixed-up order would have been seen


def test_whole_crops_are_pillows(crop: Callable) -> None:
    """The views that `sample` draws, made step by step with Pillow, are what `multi_crop` returns."""
    images, key = np.stack([smooth(seed) for seed in range(4)]), jax.random.key(5)
    draw = jax.jit(jax.vmap(lambda key: sample(key, 64, 32, SMALL)))
    seen = np.zeros(3, int)
    for crops, views in zip(crop(images, key), draw(jax.random.split(key, 4)), strict=True):
        for row, number in np.ndindex(crops.shape[:2]):
            view = jax.tree.map(lambda leaf, at=(row, number): np.asarray(leaf)[at], views)
            top, left, height, width = view.box.tolist()
            picture = Image.fromarray(images[row]).crop((left, top, left + width, top + height))
            picture = picture.resize(crops.shape[-2:-4:-1], Image.Resampling.BICUBIC)
            picture = ImageOps.mirror(picture) if view.flip else picture
            picture = jittered(picture, view.factors, view.order) if view.factors[3] else picture
            picture = picture.convert("L").convert("RGB") if view.grey else picture
            picture = picture.filter(ImageFilter.GaussianBlur(float(view.radius)))
            picture = ImageOps.solarize(picture, 128) if view.solarize else picture
            wanted = (np.asarray(picture) / 255 - np.array(MEAN)) / np.array(STD)
            far = np.abs(crops[row, number] - wanted) * STD * 255
            assert far.max() < 8 and far.mean() < 0.3, (row, number, view)
            seen += [bool(view.flip), bool(view.grey), bool(view.solarize)]
    assert (seen > 0).all()


def test_with_everything_off_a_crop_is_the_normalised_image() -> None:
    still = replace(SMALL, global_scale=(1, 1), aspect=(0.5, 0.5), flip=0, jitter=0, grey=0, blur=(0, 0, 0), solarize=0)
    images = np.stack([noise(0), noise(1)])
    crops, none = multi_crop(images, jax.random.key(0), replace(still, local_crops=0), jnp.float32)
    wanted = (images / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(crops, np.stack([wanted, wanted], axis=1), atol=1e-5)
    assert none.shape == (2, 0, 32, 16, 3)


# The draws against their rules.


def box_by_the_rule(
    random: np.random.Generator, height: int, width: int, scale: tuple[float, float], aspect: tuple[float, float]
) -> tuple[int, int, int, int]:
    for _ in range(10):
        area, ratio = height * width * random.uniform(*scale), np.exp(random.uniform(*np.log(aspect)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(random.integers(height - h + 1)), int(random.integers(width - w + 1)), h, w
    h, w = height, width
    if width / height < aspect[0]:
        h = round(width / aspect[0])
    elif width / height > aspect[1]:
        w = round(height * aspect[1])
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [(256, 128, (0.8, 1.0)), (256, 128, (0.05, 0.8)), (128, 128, (0.5, 1.0))],  # the last often finds no box
)
def test_boxes_are_distributed_by_the_rule(height: int, width: int, scale: tuple[float, float]) -> None:
    count, aspect = 3000, (0.4, 0.6)
    choose = partial(augment.choose_box, height=height, width=width, scale=scale, aspect=aspect)
    ours = np.asarray(jax.jit(jax.vmap(choose))(jax.random.uniform(jax.random.key(1), (count, 22))))
    random = np.random.default_rng(1)
    theirs = np.array([box_by_the_rule(random, height, width, scale, aspect) for _ in range(count)])
    assert (ours[:, :2] >= 0).all() and (ours[:, :2] + ours[:, 2:] <= [height, width]).all()
    both = np.concatenate([ours, theirs]).astype(float).T
    top, left, h, w = both
    bound = 1.95 * np.sqrt(2 / count)  # Kolmogorov and Smirnov's, one error in a thousand
    for values in (top, left, h, w, h * w, w / h, top / np.maximum(height - h, 1), left / np.maximum(width - w, 1)):
        steps = np.searchsorted(np.sort(values[:count]), np.unique(values), side="right")
        others = np.searchsorted(np.sort(values[count:]), np.unique(values), side="right")
        assert np.abs(steps - others).max() / count < bound


@pytest.mark.parametrize(
    ("height", "width", "box"), [(256, 16, (108, 0, 40, 16)), (32, 256, (0, 118, 32, 19)), (30, 15, (0, 0, 30, 15))]
)
def test_where_no_box_fits_the_largest_one_in_the_middle_is_taken(height: int, width: int, box: tuple) -> None:
    key, too_large = jax.random.key(0), (2.0, 3.0)
    result = augment.choose_box(jax.random.uniform(key, (22,)), height, width, too_large, (0.4, 0.6))
    assert tuple(result.tolist()) == box
    random = np.random.default_rng(0)
    assert box_by_the_rule(random, height, width, too_large, (0.4, 0.6)) == box


def test_every_step_is_as_frequent_as_set(draws: tuple[View, View]) -> None:
    settings = Crops()
    for views, blurs, solarize in zip(draws, [[1.0, 0.1], [0.5] * 8], [[0, 0.2], [0] * 8], strict=True):
        shares = {
            "flip": (views.flip, settings.flip),
            "grey": (views.grey, settings.grey),
            "jitter": ((views.factors != [1, 1, 1, 0]).any(axis=-1), settings.jitter),
            "blur": (views.radius > 0, np.array(blurs)),
            "solarize": (views.solarize, np.array(solarize)),
        }
        for name, (happened, wanted) in shares.items():
            error = 4 * np.sqrt(wanted * (1 - wanted) / len(happened))  # 4 standard deviations; 0 and 1 are exact
            assert (np.abs(happened.mean(axis=0) - wanted) <= error).all(), name


def test_strengths_are_uniform_and_orders_equally_likely(draws: tuple[View, View]) -> None:
    views = draws[1]
    changed = (views.factors != [1, 1, 1, 0]).any(axis=-1)
    low, high = np.array([0.6, 0.6, 0.8, -0.1]), np.array([1.4, 1.4, 1.2, 0.1])
    values = [*((views.factors[changed] - low) / (high - low)).T, (views.radius[views.radius > 0] - 0.1) / 1.9]
    for value in values:
        quantiles = np.arange(1, len(value) + 1) / len(value)
        assert np.abs(np.sort(value) - quantiles).max() < 1.95 / np.sqrt(len(value))
    orders, counts = np.unique(views.order.reshape(-1, 4), axis=0, return_counts=True)
    assert sorted(map(tuple, orders)) == sorted(map(tuple, ORDERS)) and len(ORDERS) == 24
    expected = counts.sum() / 24
    assert ((counts - expected) ** 2 / expected).sum() < 49.7  # chi-squared of 23, one error in a thousand


def test_no_two_draws_of_an_image_go_together(draws: tuple[View, View]) -> None:
    """Flips, factors, places and radii of all ten crops: every pair is uncorrelated, within a crop and across."""
    columns = []
    for views in draws:
        room = np.maximum([256, 128] - views.box[..., 2:], 1)
        parts = (views.flip, views.grey, views.solarize, views.radius, views.order[..., 0])
        parts += (*np.moveaxis(views.factors, -1, 0), *np.moveaxis(views.box[..., :2] / room, -1, 0))
        columns += [column for part in parts for column in np.asarray(part, float).T if column.std()]
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert len(columns) > 90 and np.abs(correlation).max() < 0.07  # more than 5 standard deviations


# Rows, keys and devices.


def test_equal_images_get_crops_of_their_own_and_a_key_always_the_same(crop: Callable) -> None:
    images = np.stack([smooth(0)] * 4)
    first, again, other = (crop(images, jax.random.key(seed)) for seed in (0, 0, 1))
    for crops, same, others in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(crops, same)
        flat = np.concatenate([np.asarray(part).reshape(-1, crops[0, 0].size) for part in (crops, others)])
        assert len(np.unique(flat, axis=0)) == len(flat)


def test_a_row_depends_on_no_other_row(crop: Callable) -> None:
    images, key = np.stack([smooth(seed) for seed in range(4)]), jax.random.key(0)
    changed = images.copy()
    changed[[0, 1, 3]] = [noise(seed) for seed in range(3)]
    for before, after in zip(crop(images, key), crop(changed, key), strict=True):
        np.testing.assert_array_equal(before[2], after[2])
        assert (np.asarray(before)[[0, 1, 3]] != np.asarray(after)[[0, 1, 3]]).any(axis=(1, 2, 3, 4)).all()


_SHARDED = """
import re, sys
from functools import partial
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from cion_jax.data.augment import multi_crop
from test_augment import SMALL, noise

assert jax.device_count() == 8
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
rows = NamedSharding(mesh, PartitionSpec("data"))
images = jax.device_put(np.stack([noise(seed) for seed in range(16)]), rows)
for on_cpu in (False, True):
    make = partial(multi_crop, crops=SMALL, dtype=jnp.float32, on_cpu=on_cpu)
    program = jax.jit(make, out_shardings=rows).lower(images, jax.random.key(0)).compile()
    assert not re.search("all-gather|all-to-all|all-reduce|collective", program.as_text()), "rows are sent around"
np.savez(sys.argv[1], *program(images, jax.random.key(0)))
"""


@pytest.mark.slow
def test_eight_devices_make_the_crops_of_one_and_send_nothing_around(tmp_path: Path) -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", _SHARDED, str(tmp_path / "crops.npz")], check=True, env=environment)
    images = np.stack([noise(seed) for seed in range(16)])
    make = jax.jit(partial(multi_crop, crops=SMALL, dtype=jnp.float32, on_cpu=True))
    crops = make(images, jax.random.key(0))
    with np.load(tmp_path / "crops.npz") as sharded:
        for wanted, name in zip(crops, sharded, strict=True):
            np.testing.assert_array_equal(sharded[name], wanted)


def test_all_images_at_once_get_the_crops_that_they_get_one_by_one() -> None:
    """But for a mean that ends in a half, which a product and a sum of shifts may round to different sides."""
    images, key = np.stack([noise(seed) for seed in range(4)]), jax.random.key(3)
    make = partial(multi_crop, crops=SMALL, dtype=jnp.float32)
    one_by_one, at_once = (jax.jit(partial(make, on_cpu=each), compiler_options=USUAL) for each in (True, False))
    for one, other in zip(one_by_one(images, key), at_once(images, key), strict=True):
        assert (np.abs(one - other) > 1e-5).mean() < 1e-3 and np.abs(one - other).max() < 2.1 / 255 / min(STD)


def test_bfloat16_crops_are_the_float32_ones_rounded(crop: Callable) -> None:
    images, key = np.stack([smooth(seed) for seed in range(4)]), jax.random.key(0)
    rounded = jax.jit(partial(multi_crop, crops=SMALL, dtype=jnp.bfloat16, on_cpu=True))(images, key)
    for short, full in zip(rounded, crop(images, key), strict=True):
        assert short.dtype == jnp.bfloat16
        np.testing.assert_allclose(short.astype(jnp.float32), full, rtol=1 / 256, atol=1e-3)


# The picture.


def test_views_show_images_and_their_crops(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "views", str(dataset), str(tmp_path / "views.png")]
    sizes = shlex.split("--global-size 32 16 --local-size 16 8 --local-crops 2")
    still = shlex.split("--flip 0 --jitter 0 --grey 0 --blur 0 0 0 --solarize 0 --aspect .5 .5 --global-scale 1 1")
    assert main([*command, "--rows=3", *sizes, *still]) == 0
    with Image.open(tmp_path / "views.png") as picture:
        views = np.asarray(picture)
    assert views.shape == (4 + 3 * (32 + 4), 4 + 3 * (16 + 4) + 2 * (8 + 4), 3)
    for row, number in enumerate((0, 99, 199)):
        line = views[4 + 36 * row :][:32]
        for left in (4, 24, 44):  # the image and, with all that changes it off, two times the same as a crop
            np.testing.assert_array_equal(line[:, left : left + 16], Records(dataset).pixels(number))
        first, second = line[:16, 64:72], line[:16, 76:84]
        assert first.std() > 0 and second.std() > 0 and (first != second).any()
        assert (line[16:, 64:] == 250).any(axis=2).all()  # paper
    assert [path.name for path in tmp_path.iterdir()] == ["views.png"]
    assert main([*command, "--rows=0"]) == 1
    assert "--rows 0: must be at least 1" in capsys.readouterr().err


def test_the_command_wakes_jax_only_when_it_runs() -> None:
    check = "import sys, cion_jax.cli; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_views_without_local_crops_of_a_size_that_images_do_not_have(dataset: Path, tmp_path: Path) -> None:
    command = ["data", "views", str(dataset), str(tmp_path / "views.png"), "--rows=1", "--local-crops=0"]
    assert main([*command, "--global-size", "48", "24"]) == 0
    with Image.open(tmp_path / "views.png") as picture:
        assert picture.size == (4 + 3 * (24 + 4), 4 + 48 + 4)
