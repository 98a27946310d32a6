"""`cion index`, `search`, `enrol` and `forget`: from features to answers, as a table, as JSON and as a page."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from cion_jax.cli import main
from cion_jax.data.labels import write_labelling
from cion_jax.data.records import Records
from cion_jax.gallery.store import read
from cion_jax.models.zoo import backbone
from cion_jax.weights.file import Weights, load, save
from pages import Page
from tfrecords_tools.tracklet_names import names_file, write_names

#: People of the training images, which `Blocks` draws one after the other.
PEOPLE = 8


@pytest.fixture(scope="module")
def place(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, a dataset with names of its tracklets, its features, and an index of them. Not to be written to."""
    place = tmp_path_factory.mktemp("gallery")
    model = backbone("resnet10_half_ibn", image_size=(32, 16))
    save(place / "weights.safetensors", Weights(model, model.init(jax.random.key(0))))
    data = shutil.copytree(dataset, place / "data")
    index = Records(data).index
    numbers = np.unique(index[["tracklet", "video"]]).tolist()
    write_names([(*pair, f"film {pair[1]}.mp4", f"track {pair[0]}") for pair in numbers])(data / names_file("train"))
    people = np.arange(len(index)) * PEOPLE // len(index)
    write_labelling(place / "labels.npz", people, Records(data).card.fingerprint, {})
    features = place / "features"
    assert main(["embed", str(place / "weights.safetensors"), str(data), str(features), "--split=train"]) == 0
    options = ["--labels", str(place / "labels.npz")]
    assert main(["index", str(features), str(place / "index"), *options]) == 0
    return place


@pytest.fixture
def index(place: Path, tmp_path: Path) -> Path:
    """A copy of the index to change."""
    return Path(shutil.copytree(place / "index", tmp_path / "index"))


@pytest.fixture
def pictures(place: Path, tmp_path: Path) -> Path:
    """Two images of the dataset as files, in two folders."""
    records = Records(place / "data")
    for name, number in (("a/one.jpg", 0), ("b/two.jpg", 150)):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(records[number].image)
    return tmp_path / "pictures"


def answers(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    capsys.readouterr()
    assert main(["search", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_image_of_the_index_finds_itself_and_whatever_is_known_of_it(
    place: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answers(capsys, place / "index", pictures / "b" / "two.jpg", pictures / "a", "--threshold=0.5")
    assert found["by"] == "person" and [query["query"] for query in found["queries"]] == [
        str(pictures / "b" / "two.jpg"), str(pictures / "a" / "one.jpg")
    ]  # fmt: skip
    records = Records(place / "data")
    for query, number in zip(found["queries"], (150, 0), strict=True):
        first = query["answers"][0]
        assert first["distance"] == pytest.approx(0, abs=1e-5) and first["match"] and first["row"] == number
        row = records.index[number]
        assert first["person"] == str(number * PEOPLE // len(records)) and first["image"] == records[number].source
        for name in ("tracklet", "video", "frame", "camera"):
            assert first.get(name, -1) == row[name]
        assert (
            first["tracklet_name"] == f"track {row['tracklet']}" and first["video_name"] == f"film {row['video']}.mp4"
        )
        assert len(query["answers"]) == PEOPLE  # of ten that were asked for


def test_records_ask_too_and_a_table_and_a_page_answer(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "found.html"
    capsys.readouterr()
    options = ["--by=tracklet", "--top=3", "--threshold=1.9", f"--page={page}"]
    assert main(["search", str(place / "index"), str(place / "data"), *options]) == 0
    printed = capsys.readouterr().out
    assert "query 19" in printed and "yes" in printed and "A match is nearer than 1.9, as given." in printed
    contents = Page(page.read_text())
    assert len(contents.pictures) == 20 * 4  # each query and its answers
    assert len({picture["src"] for picture in contents.pictures}) > 20  # which are no grey ones
    assert contents.texts_with(r"query 19: 3 matches") and contents.texts_with("film [0-9]+.mp4 track [0-9]+")


def test_people_come_and_go(index: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read(index)
    capsys.readouterr()
    assert main(["enrol", str(index), "[Anna]", str(pictures)]) == 0
    assert capsys.readouterr().out == f"{index}: 202 images, 40 tracklets, 9 people\n"
    found = answers(capsys, index, pictures / "a" / "one.jpg")
    names = [answer["person"] for answer in found["queries"][0]["answers"][:2]]
    assert set(names) == {"0", "[Anna]"}  # the same image twice
    assert main(["search", str(index), str(pictures / "a"), "--top=2"]) == 0
    assert "[Anna]" in capsys.readouterr().out  # which is no markup
    assert main(["forget", str(index), "[Anna]"]) == 0
    assert main(["forget", str(index), "--tracklet", str(before.rows["tracklet"][0])]) == 0
    assert len(read(index).rows) == (before.rows["tracklet"] != before.rows["tracklet"][0]).sum()


def test_the_same_command_leaves_an_index_as_it_is(
    place: Path, index: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["index", str(place / "features"), str(index)]
    labels = ["--labels", str(place / "labels.npz")]
    assert main(["enrol", str(index), "Anna", str(pictures)]) == 0
    capsys.readouterr()
    assert main([*again, *labels]) == 0
    assert "is there already, with 202 images" in capsys.readouterr().out
    assert main(again) == 1
    assert "holds another index" in capsys.readouterr().err
    pytest.importorskip("usearch")
    assert main([*again, *labels, "--approximate"]) == 0
    assert "202 images" in capsys.readouterr().out and read(index).graph is not None


def test_a_folder_of_images_is_an_index_too_which_knows_their_paths(
    place: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["embed", str(place / "weights.safetensors"), str(pictures), str(tmp_path / "features")]) == 0
    assert main(["index", str(tmp_path / "features"), str(tmp_path / "out"), "--half"]) == 0
    found = answers(capsys, tmp_path / "out", pictures / "a" / "one.jpg")
    assert found["by"] == "image" and found["threshold"] is None
    assert [each["image"] for each in found["queries"][0]["answers"]] == [
        str(pictures / "a" / "one.jpg"), str(pictures / "b" / "two.jpg")
    ]  # fmt: skip
    shutil.move(pictures, tmp_path / "moved")
    page = tmp_path / "found.html"
    assert main(["search", str(tmp_path / "out"), str(tmp_path / "moved" / "a"), f"--page={page}"]) == 0
    assert Page(page.read_text()).texts_with("2 images are not there any more")


def test_mistakes_are_answered_with_one_line(
    place: Path, index: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load(place / "weights.safetensors")
    doubled = jax.tree.map(lambda leaf: 2 * leaf, weights.variables)
    save(tmp_path / "other.safetensors", Weights(weights.network, doubled))
    other = f"--weights={tmp_path / 'other.safetensors'}"
    for arguments, message in (
        (["search", index, pictures, other], "not the weights that the index was made with; name those with --weights"),
        (["search", tmp_path, pictures], "no index is here without index.json; make one with `cion index`"),
        (["search", index, tmp_path / "nothing"], "nothing: not there; name image files"),
        (["search", index], "no images are given"),
        (["search", index, pictures, "--threshold=3"], "threshold 3.0: distances are"),
        (["search", index, pictures, f"--page={tmp_path}/no/x.html"], "there is no folder"),
        (["index", place / "data", tmp_path / "new"], "this is a dataset; `cion embed RUN"),
        (["index", place / "features", tmp_path / "new", "--images", place / "data", "--split=gallery"], "no features"),
        (["enrol", index, "Anna", place / "data"], "a dataset shows many people"),
        (["forget", index, "Anna"], "the index has no person 'Anna'; there are 0, 1, 2, 3, 4, 5, 6, 7"),
        (["forget", index], "one of both"),
    ):
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 1, arguments
        error = capsys.readouterr().err
        assert error.startswith("cion: ") and message in error and error.count("\n") == 1, error
    assert not (tmp_path / "new").exists()
