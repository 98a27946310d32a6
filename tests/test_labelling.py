"""`denoise` and `cion denoise`: what is written, what is refused, and that promises are checked."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cion_jax.cli import main
from cion_jax.config import Denoising, Writing
from cion_jax.data.labels import LABELS, read_labelling, write_labelling
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.denoise.denoise import Denoised, denoise
from cion_jax.denoise.inputs import read_tracked
from cion_jax.errors import UserError
from cion_jax.evaluate.clustering_metrics import agreement
from cion_jax.evaluate.feature_store import CARD, INDEX
from experiments.feature_world import FeatureWorld, Sample, draw
from pages import Page, can_be_seen
from sources import Blocks

WORLD = FeatureWorld(identities=60, videos=12, width=32)


@pytest.fixture(scope="module")
def sample() -> Sample:
    return draw(WORLD)


@pytest.fixture(scope="module")
def table(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "table.npz"
    np.savez(path, **sample._asdict())
    return path


def cion(*arguments: Any) -> int:
    return main(["denoise", *map(str, arguments)])


# What is written.


def test_labels_have_no_gaps_and_settings_are_printed(
    sample: Sample, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels.npz"
    assert cion(table, out, "--range", "50") == 0
    with np.load(out) as arrays:
        labels = arrays["labels"]
        noise = arrays["noise"]
        settings = json.loads(str(arrays["settings"]))
    assert labels.dtype == np.int64 and labels.shape == sample.video.shape
    assert np.array_equal(np.unique(labels), np.arange(-1, labels.max() + 1))
    assert noise.shape == (4, 4) and noise[-1, 1] == labels.max() + 1 and noise[-1, 0] == (labels >= 0).sum()
    assert settings["range"] == 50 and settings["levels"] == 3 and 0 < settings["tau"] < 1 and 0 < settings["sigma"] < 1
    assert settings["whiten"] in ("total", "within") and settings["warnings"] == [] and settings["cannot_link"] >= 0
    printed = capsys.readouterr().out
    assert f"sigma {settings['sigma']:.4g}" in printed and f"{labels.max() + 1:,} identities" in printed


OPTIONS: list[list[str]] = [
    [],
    ["--range", "20"],
    ["--tau", "0.3"],
    ["--no-video-mean", "--whiten", "none", "--tau", "0.1"],
    ["--whiten", "total"],
    ["--whiten", "within", "--no-frames"],
    ["--levels", "2", "--min-images", "5"],
]


def as_settings(written: dict[str, Any]) -> Denoising:
    return Denoising(**{field.name: written[field.name] for field in fields(Denoising)})


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_the_settings_in_a_labelling_make_its_labels_again(
    options: list[str], sample: Sample, table: Path, tmp_path: Path
) -> None:
    """Also with `auto` replaced by what it came to."""
    out = tmp_path / "labels.npz"
    assert cion(table, out, *options) == 0
    with np.load(out) as arrays:
        labels = arrays["labels"]
        again = as_settings(json.loads(str(arrays["settings"])))
    assert "auto" not in (again.sigma, again.tau, again.whiten)
    assert again.video_mean == ("--no-video-mean" not in options) and again.frames == ("--no-frames" not in options)
    assert labels.max() + 1 < len(np.unique(sample.tracklet)) - 20
    np.testing.assert_array_equal(denoise(*sample[:4], again).labels, labels)


@pytest.mark.parametrize("whiten", ["total", "within", "none"])
def test_a_named_space_is_taken(whiten: Any, sample: Sample) -> None:
    for tau in (0.2, "auto"):
        assert denoise(*sample[:4], Denoising(whiten=whiten, tau=tau)).settings.whiten == whiten


def test_each_setting_of_the_features_makes_a_difference(sample: Sample) -> None:
    steep_spectrum = sample.features * np.geomspace(1, 0.1, 32)
    usual = Denoising(tau=0.8, sigma=0.2, whiten="total")
    others = [replace(usual, whiten="within"), replace(usual, whiten="none"), replace(usual, video_mean=False)]
    others.append(replace(usual, frames=False))
    made = [denoise(steep_spectrum, *sample[1:4], each).labels for each in (usual, *others)]
    assert len({labels.tobytes() for labels in made}) == len(made)


def test_what_a_user_should_know_is_said_on_one_line_and_written(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels.npz"
    begin = np.full(sample.tracklet.max() + 1, 1 << 30)
    np.minimum.at(begin, sample.tracklet, sample.frame)
    np.savez(tmp_path / "anew.npz", **sample._replace(frame=sample.frame - begin[sample.tracklet])._asdict())
    assert cion(tmp_path / "anew.npz", out, "--tau", "0.2") == 0
    printed = [line for line in capsys.readouterr().err.splitlines() if "--no-frames" in line]
    with np.load(out) as arrays:
        written = json.loads(str(arrays["settings"]))["warnings"]
    assert printed == [f"cion: {line}" for line in written if "--no-frames" in line] and len(printed) == 1
    assert cion(tmp_path / "anew.npz", out, "--tau", "0.2", "--no-frames") == 0
    assert "--no-frames" not in capsys.readouterr().err


def assert_same(one: Denoised, other: Denoised) -> None:
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.as_dict() == other.as_dict()


def test_a_permutation_of_the_input_permutes_the_output(sample: Sample) -> None:
    order = np.random.default_rng(0).permutation(len(sample.video))
    result = denoise(*sample[:4])
    mixed = denoise(*(values[order] for values in sample[:4]))
    assert_same(mixed, result._replace(labels=result.labels[order]))


def test_names_of_videos_and_tracklets_do_not_matter(sample: Sample) -> None:
    result = denoise(*sample[:4])
    named = denoise(sample.features * 8, sample.video * 3 + 5, sample.tracklet * 2 + 1, sample.frame + 9)
    assert_same(named, result)


def test_the_order_of_names_changes_numbers_alone(sample: Sample) -> None:
    random = np.random.default_rng(0)
    video = random.permutation(12)[sample.video]
    tracklet = random.permutation(sample.tracklet.max() + 1)[sample.tracklet]
    result = denoise(*sample[:4])
    named = denoise(sample.features, video, tracklet, sample.frame)
    pairs = np.unique(np.stack([result.labels, named.labels], axis=1), axis=0)
    assert len(pairs) == len(np.unique(result.labels)) == len(np.unique(named.labels))
    assert (pairs[:, 0] == -1).tolist() == (pairs[:, 1] == -1).tolist()
    assert result.settings.tau == pytest.approx(named.settings.tau, rel=1e-6)


def test_small_identities_are_dropped_at_the_end(sample: Sample) -> None:
    result = denoise(*sample[:4])
    most = denoise(*sample[:4], Denoising(min_images=40))
    images = np.bincount(result.labels[result.labels >= 0])
    assert images.min() < 40 < images.max()
    kept = np.isin(result.labels, np.flatnonzero(images >= 40))
    np.testing.assert_array_equal(most.labels >= 0, kept)
    assert np.bincount(most.labels[kept]).min() >= 40 and most.noise == result.noise
    assert (denoise(*sample[:4], Denoising(min_images=10_000)).labels == -1).all()


def test_images_without_a_tracklet_are_nobodys(sample: Sample) -> None:
    tracklet = np.where(np.arange(len(sample.video)) % 7 == 0, -1, sample.tracklet)
    assert (denoise(sample.features, sample.video, tracklet, sample.frame).labels[::7] == -1).all()


def test_a_tracklet_may_have_images_of_one_frame(sample: Sample) -> None:
    """Within a tracklet a frame forbids no link: that two images are one person is what the tracker says."""
    result = denoise(sample.features, sample.video, sample.tracklet, sample.frame // 2)
    twice = np.stack([result.labels, sample.video, sample.frame // 2, sample.tracklet], axis=1)[result.labels >= 0]
    assert len(np.unique(twice, axis=0)) < len(twice)
    people = np.unique(twice, axis=0)[:, :3]
    assert len(np.unique(people, axis=0)) == len(people)


# Features of mirrored images.


def halves(sample: Sample, share: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Features of images and of their mirror images, of any length, which err to opposite sides."""
    error = share * np.random.default_rng(0).standard_normal(sample.features.shape)
    return sample.features + error, 3 * (sample.features - error)


def test_features_of_mirrored_images_are_added(sample: Sample, tmp_path: Path) -> None:
    one, other = halves(sample)
    table, out = tmp_path / "table.npz", tmp_path / "labels.npz"
    np.savez(table, **sample._replace(features=one)._asdict(), mirrored=other)
    rows = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (one, other)]
    np.testing.assert_allclose(read_tracked(table).features, rows[0] + rows[1], atol=1e-5)
    np.testing.assert_array_equal(read_tracked(table, mirror=False).features, one)
    f1 = []
    for options in ([], ["--no-mirror"]):
        assert cion(table, out, *options, "--whiten", "total") == 0
        with np.load(out) as arrays:
            assert json.loads(str(arrays["settings"]))["mirror"] == (not options)
            f1.append(agreement(arrays["labels"], sample.identity).f1)
    assert f1[0] > f1[1] + 0.2


@pytest.mark.parametrize("harm", [lambda m: m[1:], lambda m: m[:, 1:], lambda m: m.astype(int)])
def test_mirrored_of_another_shape_is_refused(
    harm: Any, sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.npz"
    np.savez(table, **sample._asdict(), mirrored=harm(sample.features))
    assert cion(table, tmp_path / "out.npz") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cion: {table}: mirrored is ") and "make it as features is" in line
    assert not (tmp_path / "out.npz").exists()


def test_without_videos_all_are_of_one(sample: Sample, tmp_path: Path) -> None:
    table, out = tmp_path / "table.npz", tmp_path / "labels.npz"
    np.savez(table, features=sample.features, tracklet=sample.tracklet)
    assert cion(table, out, "--tau", "0.2") == 0
    one = denoise(sample.features, np.zeros_like(sample.video), sample.tracklet, None, Denoising(tau=0.2))
    np.testing.assert_array_equal(np.load(out)["labels"], one.labels)


# A folder of features, and the report.


class Alike(Blocks):
    """Three images to a tracklet, two tracklets to a video."""

    @property
    def labels(self) -> np.ndarray:
        rows = np.empty(self.count, LABELS)
        number = np.arange(self.first, self.first + self.count)
        for name, values in zip(LABELS.names, (number // 6, number // 3, number, 0 * number, -1), strict=True):
            rows[name] = values
        return rows


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset, and features of it as `cion embed` writes them: the same three people in each pair of videos."""
    folder = tmp_path_factory.mktemp("folders")
    data, features = folder / "data", folder / "features"
    write_dataset(data, {"train": Alike(60)}, Writing(workers=1))
    records = Records(data)
    people = np.random.default_rng(0).standard_normal((3, 8))
    rows = people[records.index["tracklet"] % 3] + 0.05 * np.random.default_rng(1).standard_normal((60, 8))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    index = np.empty(60, INDEX)
    index["number"] = np.arange(60)
    for name in LABELS.names:
        index[name] = records.index[name]
    (features / "train").mkdir(parents=True)
    np.save(features / "train" / "index.npy", index)
    np.save(features / "train" / "features-00000-of-00001.npy", rows)
    part = {"images": 60, "fingerprint": records.card.fingerprint}
    card = {"format": 1, "width": 8, "images_per_shard": 100, "splits": {"train": part}}
    (features / CARD).write_text(json.dumps(card))
    return data, features


def test_features_of_a_dataset_become_a_labelling_and_a_report(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data, features = folders
    out, report = tmp_path / "labels.npz", tmp_path / "report.html"
    assert (
        cion(features, out, "--sigma", "0.1", "--tau", "0.1", "--whiten", "none", "--report", report, "--images", data)
        == 0
    )
    labels = read_labelling(out, Records(data).card.fingerprint, len(Records(data)))
    np.testing.assert_array_equal(labels, Records(data).index["tracklet"] % 3)
    text = report.read_text()
    pictures = Page(text).pictures
    assert len(pictures) > 6 and all(picture["alt"] and can_be_seen(picture) for picture in pictures)


# What is refused.


def bomb(path: Path) -> None:
    np.savez_compressed(path, tracklet=np.zeros(300, int), features=np.zeros((300, 1 << 18), np.float32))


def pickled(path: Path) -> None:
    np.savez(path, features=np.array([{}]), video=np.zeros(1, int), tracklet=np.zeros(1, int))


def empty(path: Path) -> None:
    np.savez(path, features=np.zeros((0, 3), np.float32), video=np.zeros(0, int), tracklet=np.zeros(0, int))


def zeros(path: Path) -> None:
    np.savez(path, features=np.zeros((2, 3), np.float32), video=np.zeros(2, int), tracklet=np.zeros(2, int))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: None, "not there"),
        (lambda path: path.write_bytes(b"no archive"), "not an .npz of plain arrays"),
        (lambda path: path.mkdir(), "no finished features are here"),
        (lambda path: np.savez(path, features=np.ones((2, 2)), video=np.zeros(2, int)), "has no tracklet"),
        (pickled, "not an .npz of plain arrays"),
        (bomb, "would unpack to 0.3 GB"),
        (zeros, "features of 2 images are zero, infinite or NaN, first that of image 0"),
        (empty, "no image has a tracklet"),
    ],
    ids=["nothing", "no archive", "folder", "no tracklets", "pickle", "bomb", "zeros", "empty"],
)
def test_files_that_are_no_tables_are_refused(
    make: Any, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "table.npz")
    assert cion(tmp_path / "table.npz", tmp_path / "out.npz") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cion: ") and "table.npz" in line and text in line
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_files_are_refused_wherever_they_are_damaged(
    compressed: bool, sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, labels = tmp_path / "table.npz", tmp_path / "labels.npz"
    arrays = {name: values for name, values in sample._asdict().items() if name != "identity"}  # which is not read
    (np.savez_compressed if compressed else np.savez)(table, **arrays)
    write_labelling(labels, sample.tracklet, "made for this", {})
    whole = table.read_bytes(), labels.read_bytes()
    for place in np.linspace(0.1, 0.55, 12):  # within the features, and within the labels
        for path, data in zip((table, labels), whole, strict=True):
            at = int(place * len(data))
            path.write_bytes(data[:at] + b"\xff\x00\xff\x13" + data[at + 4 :])
        assert cion(table, tmp_path / "out.npz") == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"cion: {table}: not an .npz of plain arrays")
        with pytest.raises(UserError, match=r"not an \.npz of plain arrays"):
            read_labelling(labels, "made for this", None)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--sigma", "0"], "sigma 0.0: distances go from 0 to 2"),
        (["--tau", "3"], "tau 3.0: distances go from 0 to 2"),
        (["--tau", "nan"], "tau nan: distances go from 0 to 2"),
        (["--range", "1"], "range 1: at least 2 identities"),
        (["--min-images", "0"], "min-images 0: must be at least 1"),
        (["--images", "somewhere"], "--images somewhere: goes with a folder of features"),
        (["--report", "nowhere/report.html"], "nowhere/report.html: there is no folder nowhere; make it first"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_that_make_no_sense_are_refused(
    options: list[str], text: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cion(table, tmp_path / "out.npz", *options) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cion: ") and text in line and not (tmp_path / "out.npz").exists()


def test_images_of_other_data_are_refused(
    folders: tuple[Path, Path], dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cion(folders[1], tmp_path / "out.npz", "--report", tmp_path / "r.html", "--images", dataset) == 1
    assert f"--images {dataset}: not the data that" in capsys.readouterr().err


def test_a_split_that_is_not_there_is_named(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cion(folders[1], tmp_path / "out.npz", "--split", "query") == 1
    assert "no features of a split 'query'; it has train" in capsys.readouterr().err
