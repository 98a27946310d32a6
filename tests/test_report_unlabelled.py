"""The page about a run on tracklets that nobody has labelled: neighbours, a map, crops, and data that have moved."""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from cion_jax.commands.report import report
from cion_jax.config import Crops, Writing
from cion_jax.data.labels import write_labelling
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from cion_jax.evaluate.embed import embed_all
from cion_jax.report.views import crops_of
from cion_jax.weights.file import load
from finished_run import SIZE, WORLD, write_run
from pages import Page
from tfrecords_tools.sheet import spread
from tfrecords_tools.world import build

pytestmark = [pytest.mark.xdist_group("report"), pytest.mark.usefixtures("small_in_zoo")]
CROPS = Crops(global_size=(32, 16), local_size=(16, 8), local_crops=2)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data that have no query and no gallery, and a run on them. Not to be written to."""
    place = tmp_path_factory.mktemp("unlabelled") / "place"
    write_dataset(place / "data", {"train": build(WORLD)["train"]}, Writing(workers=1))
    run = write_run(place / "run", place / "data")
    change(run / "settings.json", crops=asdict(CROPS), labels=None)
    change(run / "origin.json", data=str(place / "data"), folder=str(run), began_in=str(place))
    return place


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def reported(run: Path, **options: Path) -> Page:
    report(run, out=run / "page.html", **options)
    return Page((run / "page.html").read_text())


def test_each_tracklet_stands_beside_its_nearest_of_other_videos(place: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(place, tmp_path / "own"))
    page = reported(own / "run")
    records, weights = Records(place / "data"), load(place / "run" / "teacher.safetensors")
    features = embed_all(weights.network, weights.variables, records, image_size=SIZE, flip=True)
    tracklet, video = (np.array(records.index[name]) for name in ("tracklet", "video"))
    names = np.unique(tracklet)
    means = np.stack([features[spread(np.flatnonzero(tracklet == name), 4)].mean(axis=0) for name in names])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    of_video = np.array([video[tracklet == name][0] for name in names])
    rows: dict[int, list[tuple[int, float]]] = {}
    for picture in page.pictures:
        if asked := re.match(r"tracklet (\d+), .*whose neighbours", picture["alt"]):
            newest = rows.setdefault(int(asked[1]), [])
        elif found := re.match(r"neighbour (\d): tracklet (\d+), video .* distance ([\d.]+)", picture["alt"]):
            newest.append((int(found[2]), float(found[3])))
            assert int(found[1]) == len(newest)
    assert len(rows) == 8
    for name, shown in rows.items():
        row = int(np.searchsorted(names, name))
        distance = np.where(of_video == of_video[row], np.inf, 1 - means @ means[row])
        assert [each for _, each in shown] == pytest.approx(np.sort(distance)[: len(shown)], abs=6e-4)
        assert all(of_video[np.searchsorted(names, other)] != of_video[row] for other, _ in shown)
    places = [
        page.headings.index(title) for title in ("Who is near to whom", "A map of tracklets", "What training saw")
    ]
    assert places == sorted(places)
    assert any("Points in a plane" in picture["alt"] for picture in page.pictures)
    assert any(re.match("6 images of 3 people in rows", picture["alt"]) for picture in page.pictures)


def test_given_labels_come_first(place: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(place, tmp_path / "own"))
    records = Records(own / "data")
    labels = np.repeat([5, -1], [9, len(records) - 9])
    write_labelling(own / "given.npz", labels, records.card.fingerprint, {})
    page = reported(own / "run", labels=own / "given.npz")
    assert {each[1] for each in page.texts_with(r"^Identity (\d+): ")} == {"5"}


def test_data_that_moved_with_the_run_are_found(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from a folder other than the one where the run was begun, and though a path was relative."""
    moved = Path(shutil.copytree(place, tmp_path / "moved"))
    change(moved / "run" / "origin.json", data="/gone/place/data", folder="/gone/place/run", began_in="/gone/place")
    write_labelling(moved / "mine.npz", np.zeros(len(Records(moved / "data")), int), "", {})
    shutil.rmtree(moved / "run" / "labels")
    change(moved / "run" / "settings.json", labels="mine.npz")
    monkeypatch.chdir(moved / "run")
    page = reported(Path())
    assert page.texts_with("^Trained on") and page.texts_with("^As ../mine.npz has it") and not capsys.readouterr().err
    shutil.move(moved / "data", moved / "elsewhere")
    assert not reported(Path()).texts_with("^Trained on")
    assert "cion: /gone/place/data: what . was trained on is not there any more; name its place with --data" in (
        capsys.readouterr().err
    )
    assert reported(Path(), data=moved / "elsewhere").texts_with("^Trained on") and not capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [{"global_size": [10**9, 3]}, {"global_size": [8]}, {"local_crops": True}, {"blur": "x"}, {"flip": None}]
)
def test_crops_of_hostile_settings_are_refused(wrong: dict) -> None:
    assert crops_of({"crops": json.loads(json.dumps(asdict(CROPS)))}) == CROPS
    with pytest.raises(UserError, match=r"^crops"):
        crops_of({"crops": wrong})
