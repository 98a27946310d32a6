"""Colours of videos: what is the camera's is matched, what may be the people's stays."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from cion_jax.cli import main
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.evaluate import colours as colouring
from cion_jax.evaluate.colours import image_colours, matched
from cion_jax.evaluate.embed import embed_all, embedder
from cion_jax.evaluate.feature_store import open_images, read_features, write_features
from cion_jax.models.zoo import Variables, backbone
from cion_jax.weights.file import Weights, save
from embedding import SIZE, TINY, by_hand, decoded
from processes import python
from sources import Blocks, contents

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def variables() -> Variables:
    return TINY.init(jax.random.key(0))


def drawn(casts: np.ndarray, tracklets: int, spread: float, images: int = 3, seed: int = 0) -> Drawn:
    """The colours of images of videos, each with a cast (a shift of means and log standard deviations)."""
    random = np.random.default_rng(seed)
    people = spread * random.normal(size=(len(casts), tracklets, 1, 2, 3))
    values = np.array([0.4, -1.5])[:, None] + casts[:, None, None] + people
    values = values + 0.001 * random.normal(size=(len(casts), tracklets, images, 2, 3))
    number = np.arange(values[..., 0, 0].size)
    return values.reshape(-1, 2, 3), number // (tracklets * images), number // images


def after(colours: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Mean and log standard deviation of channels that are scaled and shifted."""
    return np.stack([colours[:, 0] * scale + shift, colours[:, 1] + np.log(scale)], axis=1)


def of_videos(colours: np.ndarray, video: np.ndarray) -> np.ndarray:
    return np.stack([colours[video == each].mean(0) for each in np.unique(video)])


CASTS = np.array([[[0.2, 0, -0.1], [0.5, 0.3, 0]], [[-0.2, 0.1, 0], [0, -0.3, 0.4]], [[0, -0.1, 0.1], [-0.5, 0, -0.4]]])


def test_the_casts_of_cameras_are_taken_off_videos_of_many_people() -> None:
    colours, video, tracklet = drawn(CASTS, tracklets=400, spread=0.02)
    scale, shift = matched(colours, video, tracklet)
    assert scale.dtype == shift.dtype == np.float32
    result = of_videos(after(colours, scale, shift), video)
    assert np.ptp(of_videos(colours, video), axis=0).min() > 0.19
    assert np.ptp(result, axis=0).max() < 1e-3
    np.testing.assert_allclose(result.mean(0), colours.mean(0), atol=1e-3)


def test_the_shrinkage_is_that_of_james_and_stein() -> None:
    """By hand: tracklets of values 0 (of three images) and 2 in one video, and one of 10 in another."""
    value = np.array([-1.0, 0.0, 1.0, 2.0, 10.0])
    colours = np.zeros((5, 2, 3)) + value[:, None, None] / 20
    scale, shift = matched(colours, np.array([4, 4, 4, 4, 9]), np.array([0, 0, 0, 1, 2]))
    within = 2 / (3 - 2)
    between = ((1 - 4) ** 2 + (10 - 4) ** 2) / 2 - (within / 2 + within / 1) / 2
    small, large = between / (between + within / 1), between / (between + within / 2)
    expected = np.array([*[4 + large * (1 - 4)] * 4, 4 + small * (10 - 4)]) / 20
    np.testing.assert_allclose(scale[:, 0], np.exp(4 / 20 - expected), rtol=1e-6)
    np.testing.assert_allclose(shift[:, 0], 4 / 20 - expected * scale[:, 0], rtol=1e-5)
    assert 0 < small < large < 1


def test_videos_of_few_tracklets_change_less() -> None:
    """A video of two tracklets has the very colours of one of sixty: what is its people's and what the camera's?"""
    colours, video, tracklet = drawn(CASTS, tracklets=60, spread=0.3)
    few = of_videos(colours, video)[[0, 0]]
    colours, video, tracklet = np.concatenate([colours, few]), np.append(video, [7, 7]), np.append(tracklet, [998, 999])
    scale, shift = matched(colours, video, tracklet)
    moved = np.abs(of_videos(after(colours, scale, shift), video) - of_videos(colours, video))
    assert 0.1 < moved[3, 1, 0] / moved[0, 1, 0] < 0.9


def test_people_of_other_colours_in_each_video_are_no_camera() -> None:
    """Where videos differ by chance alone, most of the difference stays."""
    moved, chance = [], []
    for seed in range(20):
        colours, video, tracklet = drawn(0 * CASTS, tracklets=8, spread=0.1, seed=seed)
        before = of_videos(colours, video)
        moved.append(of_videos(after(colours, *matched(colours, video, tracklet)), video)[:, 1] - before[:, 1])
        chance.append(before[:, 1] - before[:, 1].mean(0))
    assert np.mean(np.square(moved)) < np.mean(np.square(chance)) / 3


@pytest.mark.parametrize("tracklets", [1, 30])
def test_one_video_keeps_its_colours(tracklets: int) -> None:
    scale, shift = matched(*drawn(CASTS[:1], tracklets, spread=0.1))
    np.testing.assert_allclose(scale, 1, atol=1e-6)
    np.testing.assert_allclose(shift, 0, atol=1e-6)


def test_images_without_video_or_tracklet_change_nothing_and_nothing_changes_them() -> None:
    colours, video, tracklet = drawn(CASTS, tracklets=20, spread=0.05)
    scale, shift = matched(colours, video, tracklet)
    strange = np.random.default_rng(0).normal(size=(40, 2, 3))
    more = [np.concatenate(pair) for pair in (
        (colours, strange), (video, np.arange(40) % 5 - 1), (tracklet, np.where(np.arange(40) % 5, -1, 3))
    )]  # fmt: skip
    all_scale, all_shift = matched(*more)
    np.testing.assert_array_equal(all_scale[: len(scale)], scale)
    np.testing.assert_array_equal(all_shift[: len(shift)], shift)
    assert (all_scale[len(scale) :] == 1).all() and (all_shift[len(shift) :] == 0).all()
    nobody = np.full(len(video), -1)
    assert (matched(colours, video, nobody)[0] == 1).all() and (matched(colours, video, nobody)[1] == 0).all()


def test_neither_order_nor_names_make_a_difference() -> None:
    """Tracklets may be counted anew in each video."""
    colours, video, tracklet = drawn(CASTS, tracklets=20, spread=0.1)
    order = np.random.default_rng(0).permutation(len(video))
    other = matched(colours[order], 50 - 7 * video[order], (tracklet % 20)[order])
    for values, same in zip(matched(colours, video, tracklet), other, strict=True):
        np.testing.assert_allclose(values[order], same, rtol=1e-5, atol=1e-6)


# Colours that are read from images.


class Painted(Blocks):
    """Blocks under two cameras: the second video's are darker, flatter and redder; the last image is blank."""

    def pixels(self, number: int) -> np.ndarray:
        pixels = super().pixels(number)
        if number == self.count - 1:
            return np.zeros_like(pixels)
        return pixels if number < self.count // 2 else (pixels * [0.5, 0.3, 0.3] + [10, 20, 20]).astype(np.uint8)

    def pixels_into(self, out: np.ndarray, number: Any, kernel: str = "bilinear") -> None:
        out[:] = self.pixels(number)

    def where(self, number: Any) -> str:
        return str(number)


PAINTED = Painted(100, size=SIZE)


def test_the_colours_of_images_are_those_of_their_pixels() -> None:
    message: list[int] = []
    result = image_colours(PAINTED, SIZE, progress=message.append)
    pixels = np.stack([PAINTED.pixels(number) for number in range(100)]) / 255
    np.testing.assert_allclose(result[:, 0], pixels.mean((1, 2)), rtol=1e-12)
    np.testing.assert_allclose(result[:-1, 1], np.log(pixels[:-1].std((1, 2))), rtol=1e-9)
    assert np.isfinite(result).all() and sum(message) == 100


def test_records_are_read_at_the_size_at_which_they_are_embedded(dataset: Path) -> None:
    records = Records(dataset)
    expected = decoded(records) / 255
    result = image_colours(records, SIZE)
    np.testing.assert_allclose(result[:, 0], expected.mean((1, 2)), rtol=1e-12)
    np.testing.assert_allclose(result[:, 1], np.log(expected.std((1, 2))), rtol=1e-9)


def test_hosts_share_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []
    for share in (slice(0, 0), slice(0, 70), slice(70, 100)):
        monkeypatch.setattr(colouring, "local_part", lambda work, share=share: work[share])
        parts.append(image_colours(PAINTED, SIZE))
    assert [len(part) for part in parts] == [0, 70, 30]
    monkeypatch.undo()
    np.testing.assert_array_equal(np.concatenate(parts), image_colours(PAINTED, SIZE))


def painted_colours() -> tuple[np.ndarray, np.ndarray]:
    number = np.arange(len(PAINTED))
    return matched(image_colours(PAINTED, SIZE), number // 50, number // 2)


def recoloured() -> np.ndarray:
    pixels = np.stack([PAINTED.pixels(number) for number in range(len(PAINTED))])
    scale, shift = (each[:, None, None] for each in painted_colours())
    return 255 * np.clip(pixels / 255 * scale + shift, 0, 1)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("batch", [7, 256])
def test_features_are_those_of_images_with_matched_colours(batch: int, flip: bool, variables: Variables) -> None:
    options: dict[str, Any] = {"image_size": SIZE, "batch": batch, "flip": flip}
    result = embed_all(TINY, variables, PAINTED, **options, colours=painted_colours())
    np.testing.assert_allclose(result, by_hand(variables, recoloured(), flip=flip), atol=5e-6)
    assert np.isfinite(result).all()
    plain = embed_all(TINY, variables, PAINTED, **options)
    assert np.abs(result - plain).max() > 0.01
    kept = np.ones((100, 3), np.float32), np.zeros((100, 3), np.float32)
    np.testing.assert_allclose(embed_all(TINY, variables, PAINTED, **options, colours=kept), plain, atol=2e-6)


def test_matching_brings_videos_of_two_cameras_together() -> None:
    """Blocks of the same kind under both, so that what differs is the cameras'."""
    before = np.stack([PAINTED.pixels(number) for number in range(99)])
    for measure in (np.mean, np.std):
        first, second = (
            np.abs(measure(pixels[:50], axis=(1, 2)).mean(0) - measure(pixels[50:], axis=(1, 2)).mean(0)) / 255
            for pixels in (before, recoloured()[:99])
        )
        assert (first > 0.1).all() and (second < first / 3).all()


ON_DEVICES = """
import sys
import jax, numpy as np
from cion_jax.evaluate.embed import embed_all
from embedding import SIZE, TINY
from test_colours import PAINTED, painted_colours
assert jax.device_count() == 8
variables = TINY.init(jax.random.key(0))
np.save(sys.argv[1], embed_all(TINY, variables, PAINTED, image_size=SIZE, batch=30, colours=painted_colours()))
"""


def test_eight_devices_find_the_same(tmp_path: Path, variables: Variables) -> None:
    devices = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    assert python(ON_DEVICES, tmp_path / "eight.npy", XLA_FLAGS=devices) == 0
    alone = embed_all(TINY, variables, PAINTED, image_size=SIZE, colours=painted_colours())
    np.testing.assert_allclose(np.load(tmp_path / "eight.npy"), alone, atol=2e-6)


def test_a_program_without_colours_knows_nothing_of_them(variables: Variables) -> None:
    run = embedder(TINY, variables)
    pixels = np.zeros((8, *SIZE, 3), np.uint8)
    one = np.ones((8, 3), np.float32)
    plain, coloured = (str(jax.make_jaxpr(run)(pixels, *colours)) for colours in ((), (one, one)))
    assert "clip" not in plain and "clip" in coloured
    assert run(pixels + 1).shape == run(pixels + 1, one, one).shape


# Folders of features, and the command.


def write(out: Path, splits: Any, variables: Variables, **settings: Any) -> dict[str, Any]:
    return write_features(out, splits, TINY, variables, image_size=SIZE, batch=16, images_per_shard=48, **settings)


def without_tracklets(dataset: Path) -> dict[str, Any]:
    """The training images, and the queries as evaluation sets have them: of no tracklet."""
    splits = open_images(dataset)
    labels = np.array(splits["query"].labels)
    labels["tracklet"] = -1
    return {"train": splits["train"], "query": replace(splits["query"], labels=labels)}


def test_each_split_is_matched_by_itself_or_left_as_it_is(dataset: Path, variables: Variables, tmp_path: Path) -> None:
    splits = without_tracklets(dataset)
    card = write(tmp_path / "plain", splits, variables)
    assert card["match_colours"] is False
    card = write(tmp_path / "matched", splits, variables, match_colours=True)
    assert card["match_colours"] is True
    records = Records(dataset)
    colours = matched(image_colours(records, SIZE), records.index["video"], records.index["tracklet"])
    expected = embed_all(TINY, variables, records, image_size=SIZE, batch=16, colours=colours)
    np.testing.assert_allclose(read_features(tmp_path / "matched", "train")[0], expected, atol=2e-6)
    plain = read_features(tmp_path / "plain", "train")[0]
    assert np.abs(expected - plain).max() > 0.001
    files = [tmp_path / name / "query" / "features-00000-of-00001.npy" for name in ("plain", "matched")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("unfinished", [False, True])
def test_a_changed_setting_is_refused(unfinished: bool, dataset: Path, variables: Variables, tmp_path: Path) -> None:
    splits = without_tracklets(dataset)
    write(tmp_path / "out", splits, variables, match_colours=True)
    whole = contents(tmp_path / "out")
    if unfinished:
        (tmp_path / "out" / ".unfinished").mkdir()
        (tmp_path / "out" / "features.json").rename(tmp_path / "out" / ".unfinished" / "features.json")
        next((tmp_path / "out" / "train").glob("features-00002*")).unlink()
    with pytest.raises(UserError, match="match_colours True there, False here; choose another folder"):
        write(tmp_path / "out", splits, variables)
    write(tmp_path / "out", splits, variables, match_colours=True)
    assert contents(tmp_path / "out") == whole


def test_features_of_before_there_was_the_option_are_plain_ones(
    dataset: Path, variables: Variables, tmp_path: Path
) -> None:
    splits, card = open_images(dataset, "query"), tmp_path / "out" / "features.json"
    write(tmp_path / "out", splits, variables)
    message = json.loads(card.read_text())
    del message["match_colours"], message["digest"]  # nor were there digests
    card.write_text(json.dumps(message))
    write(tmp_path / "out", splits, variables)
    with pytest.raises(UserError, match="match_colours False there, True here; choose another folder"):
        write(tmp_path / "out", splits, variables, match_colours=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as `cion pretrain` leaves it, as far as is needed here."""
    model, run = backbone("resnet18", image_size=SIZE), tmp_path_factory.mktemp("run")
    save(run / "teacher.safetensors", Weights(model, model.init(jax.random.key(0))))
    return run


def test_the_command_says_which_splits_it_leaves_as_they_are(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cion_jax.evaluate.feature_store.open_images", lambda data, split: without_tracklets(data))
    command = ["embed", str(run), str(dataset), str(tmp_path / "out")]
    assert main([*command, "--match-colours"]) == 0
    message = capsys.readouterr().out.splitlines()
    assert message[0] == f"{tmp_path / 'out'}: no tracklets in query: colours there are left as they are"
    assert len(message) == 2 and json.loads((tmp_path / "out" / "features.json").read_text())["match_colours"]
    assert main(command) == 1
    assert "match_colours True there, False here" in capsys.readouterr().err


def test_a_folder_of_images_has_no_videos_to_match(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.jpg").write_bytes(next(PAINTED.encoded())[0])
    assert main(["embed", str(run), str(tmp_path / "pictures"), str(tmp_path / "out"), "--match-colours"]) == 1
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1 and "pictures: a folder of images has no videos" in error and "cion data import" in error
    )
    assert not (tmp_path / "out").exists()
