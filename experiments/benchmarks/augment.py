"""How fast are crops made? Ours, compiled for this CPU, against Pillow and numpy making the same views one by one.

python -m experiments.benchmarks.augment
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from cion_jax.config import MEAN, STD, Crops
from cion_jax.data.augment import multi_crop
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment, rates, table

CROPS = Crops()


def main(batch: int = 64, rounds: int = 7) -> None:
    """Make the default crops of 256x128 images in turn with each contestant.

    Args:
        batch: Images in one call.
        rounds: How often each is called; the printed figures are medians.
    """
    # Of one image: of a loop over several, XLA counts the work of one turn only.
    work: Any = _compiled(np.zeros((1, 256, 128, 3), np.uint8))[0].cost_analysis()
    images = np.random.default_rng(0).integers(0, 256, (batch, 16, 8, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    compiled, seconds = _compiled(images)
    cores = len(os.sched_getaffinity(0))
    print(environment("jax", "numpy", "pillow"))
    views = 2 + CROPS.local_crops
    print(f"{batch} images of 256x128, {views} crops each; compiled in {seconds:.1f} s to a program of", end=" ")
    print(f"{work['flops'] / 1e6:,.0f} MFLOP per image\n")
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        contestants = {
            f"multi_crop, jitted, {cores} cores": _ours(compiled, images),
            "Pillow, one process": lambda: len([_with_pillow((image, seed)) for seed, image in enumerate(images)]),
            f"Pillow, {cores} processes": lambda: len(
                list(pool.map(_with_pillow, zip(images, range(batch), strict=True), chunksize=batch // cores))
            ),
        }
        print(table(rates(contestants, rounds), "images/s"))


def _compiled(images: np.ndarray) -> tuple[jax.stages.Compiled, float]:
    began = time.perf_counter()
    make = jax.jit(lambda images, key: multi_crop(images, key, CROPS, jnp.float32, on_cpu=True))
    compiled = make.lower(images, jax.random.key(0)).compile()
    return compiled, time.perf_counter() - began


def _ours(compiled: jax.stages.Compiled, images: np.ndarray) -> Callable[[], int]:
    key = jax.random.key(0)
    return lambda: len(jax.block_until_ready(compiled(images, key))[0])


def _with_pillow(job: tuple[np.ndarray, int]) -> float:
    """The sum of all crops, so that none need be sent back."""
    return float(sum(view.sum() for view in pillow_views(*job)))


def pillow_views(pixels: np.ndarray, seed: int, crops: Crops = CROPS) -> list[np.ndarray]:
    """All crops of one image, normalised float32 (height, width, 3), as a worker of a data loader makes them."""
    image = Image.fromarray(pixels)
    random = np.random.default_rng(seed)
    scales = [crops.global_scale] * 2 + [crops.local_scale] * crops.local_crops
    sizes = [crops.global_size] * 2 + [crops.local_size] * crops.local_crops
    blurs = [*crops.blur[:2], *crops.blur[2:] * crops.local_crops]
    views = [_crop(image, *view, crops, random) for view in zip(scales, sizes, blurs, strict=True)]
    if random.random() < crops.solarize:
        views[1] = ImageOps.solarize(views[1], 128)
    mean = np.array(MEAN, np.float32)
    std = np.array(STD, np.float32)
    return [(np.asarray(view, np.float32) / 255 - mean) / std for view in views]


def _crop(
    image: Image.Image,
    scale: tuple[float, float],
    size: tuple[int, int],
    blur: float,
    crops: Crops,
    random: np.random.Generator,
) -> Image.Image:
    left, top, width, height = _box(*image.size, scale, crops.aspect, random)
    crop = image.crop((left, top, left + width, top + height)).resize(size[::-1], Image.Resampling.BICUBIC)
    if random.random() < crops.flip:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if random.random() < crops.jitter:
        changes = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
        for number in random.permutation(4):
            change = random.uniform(-1, 1) * crops.jitter_strength[number]
            crop = _turn_hue(crop, change) if number == 3 else changes[number](crop).enhance(1 + change)
    if random.random() < crops.grey:
        crop = crop.convert("L").convert("RGB")
    if random.random() < blur:
        crop = crop.filter(ImageFilter.GaussianBlur(random.uniform(*crops.blur_radius)))
    return crop


def _box(
    width: int, height: int, scale: tuple[float, float], aspects: tuple[float, float], random: np.random.Generator
) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = width * height * random.uniform(*scale)
        aspect = np.exp(random.uniform(*np.log(aspects)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(random.integers(width - w + 1)), int(random.integers(height - h + 1)), w, h
    return 0, 0, width, height  # the whole image: its own aspect is among those allowed


def _turn_hue(image: Image.Image, turn: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = Image.fromarray(np.asarray(hue) + np.array(int(255 * turn)).astype(np.uint8))
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


if __name__ == "__main__":
    command(main)
