"""Imports by Apache Beam write what imports here write, to the last byte. Skipped where Beam is not installed."""

from importlib.util import find_spec
from pathlib import Path

import fsspec
import pytest

from bucket import Bucket
from cion_jax.cli import main
from cion_jax.config import Tracking, Writing
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from sources import Blocks, contents
from tfrecords_tools.video.importing import import_videos
from videos import BLUE, RED, pictures, write_mot, write_video

pytestmark = [
    pytest.mark.skipif(find_spec("apache_beam") is None, reason="needs the beam extra"),
    pytest.mark.filterwarnings("default"),  # those of Beam itself are not ours to mend
    pytest.mark.xdist_group("beam"),
]

FRAMES = 20
BEAM = Writing(images_per_shard=16, beam_runner="DirectRunner")
HERE = Writing(images_per_shard=16, workers=1)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short films, one that is empty, and the boxes of all. Not to be written to."""
    folder = tmp_path_factory.mktemp("films")
    for name, walkers in {"a": (RED,), "b": (RED, BLUE), "c": (BLUE,), "empty": (RED,)}.items():
        write_video(folder / "films" / f"{name}.mp4", pictures(walkers, FRAMES))
        (folder / "boxes").mkdir(exist_ok=True)
        write_mot(folder / "boxes" / f"{name}.txt", walkers, FRAMES)
    (folder / "films" / "empty.mp4").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def written(films: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an import in this process writes."""
    out = tmp_path_factory.mktemp("written") / "out"
    import_videos(films / "films", out, Tracking(boxes=films / "boxes", minutes=1 / 60), HERE)
    assert len([name for name in contents(out) if "tfrecord" in name]) == 5
    return contents(out)


@pytest.fixture
def bucket(films: Path, monkeypatch: pytest.MonkeyPatch) -> type[Bucket]:
    """The films in an object store."""
    monkeypatch.setattr(Bucket, "store", {})
    monkeypatch.setattr(Bucket, "pseudo_dirs", [""])
    fsspec.register_implementation("gs", Bucket, clobber=True)
    for path in (films / "films").iterdir():
        Bucket().pipe_file(f"gs://bucket/films/{path.name}", path.read_bytes())
    return Bucket


def options(films: Path) -> list[str]:
    tracking = ["--boxes", str(films / "boxes"), "--minutes", repr(1 / 60)]
    return [*tracking, "--images-per-shard", "16", "--beam-runner", "DirectRunner"]


def test_videos_become_the_same_bytes(
    films: Path, written: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["data", "import", "video", str(films / "films"), str(tmp_path / "out"), *options(films)]) == 0
    assert contents(tmp_path / "out") == written
    said = [line for line in capsys.readouterr().err.splitlines() if str(films) in line]
    assert len(said) == 1 and "empty.mp4: cannot be opened as a video (it is empty)" in said[0]


def test_from_a_store_into_a_store(
    films: Path, written: dict[str, str], bucket: type[Bucket], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["data", "import", "video", "gs://bucket/films/*.mp4", "gs://bucket/out", *options(films)]) == 0
    Bucket().get("gs://bucket/out", str(tmp_path / "out"), recursive=True)
    assert contents(tmp_path / "out") == written
    assert "gs://bucket/films/empty.mp4: cannot be opened as a video (it is empty)" in capsys.readouterr().err


def test_a_pipeline_that_fails_is_taken_up(
    films: Path, written: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = Tracking(boxes=films / "boxes", minutes=1 / 60)
    from tfrecords_tools.video import crops

    with monkeypatch.context() as patch:
        patch.setattr(crops, "encode_jpeg", lambda pixels: 1 / 0)
        with pytest.raises(UserError, match=r"the pipeline failed .*; what is done is kept") as caught:
            import_videos(films / "films", tmp_path / "out", tracking, BEAM)
    assert "\n" not in str(caught.value)
    import_videos(films / "films", tmp_path / "out", tracking, BEAM)
    assert contents(tmp_path / "out") == written


def test_other_sources_are_the_same_shape(dataset: Path, tmp_path: Path) -> None:
    sources = {"train": Blocks(200), "query": Blocks(20, seed=1)}
    write_dataset(tmp_path / "out", sources, Writing(images_per_shard=40, beam_runner="DirectRunner"))
    assert contents(tmp_path / "out") == contents(dataset)


def test_what_a_worker_refuses_is_said_in_its_line(tmp_path: Path) -> None:
    broken = Blocks(40, damaged=(3, 30))
    with pytest.raises(UserError, match=r"^blocks/3.jpg: .*--skip-damaged \(and 1 more\)$"):
        write_dataset(tmp_path / "out", {"train": broken}, Writing(images_per_shard=20, beam_runner="DirectRunner"))


def test_a_runner_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--beam-runner Flunk: the pipeline failed .*Unexpected pipeline runner"):
        write_dataset(tmp_path / "out", {"train": Blocks(5)}, Writing(beam_runner="Flunk"))
