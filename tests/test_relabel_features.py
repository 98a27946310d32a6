"""Labels made anew: the features, tracklets and settings that denoising is given."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from cion_jax.config import Denoising
from cion_jax.data.records import Records
from cion_jax.evaluate.colours import image_colours, matched
from cion_jax.evaluate.embed import embed_all
from cion_jax.models.zoo import Variables
from cion_jax.run import relabel
from embedding import SIZE, TINY
from tiny import SETTINGS


@pytest.fixture(scope="module")
def variables() -> Variables:
    return TINY.init(jax.random.key(0))


@contextmanager
def silent(what: str, total: int) -> Iterator[Any]:
    yield lambda done: None


def seen_by_denoising(
    data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, variables: Variables, **settings: Any
) -> tuple[np.ndarray, np.ndarray, Denoising]:
    """The features, tracklets and settings that denoising is given when labels are made anew."""
    given: list[Any] = []
    denoise = relabel.denoise

    def noting(features: np.ndarray, video: np.ndarray, tracklet: np.ndarray, *rest: Any) -> Any:
        given[:] = features, tracklet, rest[1]
        return denoise(features, video, tracklet, *rest)

    monkeypatch.setattr(relabel, "denoise", noting)
    asked = replace(SETTINGS, crops=replace(SETTINGS.crops, global_size=SIZE), relabel=(1, 2, 3), **settings)
    relabel.relabel(asked, TINY, variables, Records(data), out, 1, silent)
    return given[0], given[1], given[2]


WIDE = Denoising(sigma=2.0, tau=0.01)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("match", [False, True])
def test_labels_are_made_of_mirrored_images_with_matched_colours(
    mirror: bool, match: bool, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: Variables
) -> None:
    denoising = replace(WIDE, mirror=mirror, match_colours=match)
    seen, tracklet, settings = seen_by_denoising(dataset, tmp_path, monkeypatch, variables, denoising=denoising)
    records = Records(dataset)
    colours = matched(image_colours(records, SIZE), records.index["video"], records.index["tracklet"])
    expected = embed_all(TINY, variables, records, image_size=SIZE, flip=mirror, colours=colours if match else None)
    np.testing.assert_allclose(seen, expected, atol=2e-6)
    np.testing.assert_array_equal(tracklet, records.index["tracklet"])
    assert settings.levels == 3  # the first time, too


@pytest.mark.parametrize("match", [False, True])
def test_a_damaged_record_has_no_tracklet_and_no_say(
    match: bool, dataset: Path, own_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: Variables
) -> None:
    whole = Records(own_dataset)
    plain = image_colours(whole, SIZE)
    row = whole.index[7]
    with whole.shard_path(row["shard"]).open("rb+") as file:
        file.seek(int(row["offset"]) + int(row["length"]) // 2)
        file.write(b"damage")
    denoising = replace(WIDE, match_colours=match)
    options: dict[str, Any] = {"denoising": denoising, "skip_damaged": True}
    seen, tracklet, _ = seen_by_denoising(own_dataset, tmp_path, monkeypatch, variables, **options)
    expected = np.array(whole.index["tracklet"])
    expected[7] = -1
    np.testing.assert_array_equal(tracklet, expected)
    kept = np.arange(200) != 7
    colours = matched(plain, whole.index["video"], expected) if match else None
    result = embed_all(TINY, variables, Records(dataset), image_size=SIZE, flip=True, colours=colours)
    np.testing.assert_allclose(seen[kept], result[kept], atol=2e-6)
