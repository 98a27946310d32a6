"""Folders of features: whole, taken up where a run was killed, or refused; and `cion embed`."""

import json
import os
import pickle
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from cion_jax.cli import main
from cion_jax.data import images
from cion_jax.data.labels import FIELDS
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.evaluate.embed import ImageFolder
from cion_jax.evaluate.feature_store import INDEX, open_images, read_features, write_features
from cion_jax.models.zoo import Variables, backbone
from cion_jax.weights.file import Weights, load, save
from embedding import SIZE, TINY, by_hand, decoded
from processes import python
from sources import Blocks, contents


@pytest.fixture(scope="module")
def variables() -> Variables:
    return TINY.init(jax.random.key(0))


def write(out: Path, dataset: Path, variables: Variables, **others: object) -> dict:
    settings = {"image_size": SIZE, "batch": 16, "images_per_shard": 48} | others
    return write_features(out, open_images(dataset), TINY, variables, **settings)


@pytest.fixture(scope="module")
def folder(dataset: Path, variables: Variables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features of the whole dataset. Not to be written to."""
    out = tmp_path_factory.mktemp("features") / "whole"
    write(out, dataset, variables)
    return out


def test_a_folder_holds_features_and_labels(folder: Path, dataset: Path, variables: Variables) -> None:
    for split, shards in (("train", 5), ("query", 1)):
        records = Records(dataset, split)
        result, labels = read_features(folder, split)
        assert labels.dtype == INDEX
        np.testing.assert_allclose(result, by_hand(variables, decoded(records)), atol=2e-6)
        np.testing.assert_array_equal(labels["number"], np.arange(len(records)))
        for field in FIELDS:
            np.testing.assert_array_equal(labels[field], records.index[field])
        files = {path.name for path in (folder / split).iterdir()}
        assert files == {"index.npy", *(f"features-{i:05d}-of-{shards:05d}.npy" for i in range(shards))}
    assert {path.name for path in folder.iterdir()} == {"train", "query", "features.json"}
    card = json.loads((folder / "features.json").read_text())
    assert card["splits"]["train"] == {"images": 200, "fingerprint": Records(dataset).card.fingerprint}


KILLED = """
import os, signal, sys
from pathlib import Path
import jax, numpy as np
from embedding import TINY
from test_feature_store import write
saved = []
def save(file, array, **options):
    saved.append(Path(file.name).name)
    if sum("features" in name for name in saved) == 4:
        file.write(b"half a shard")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    whole(file, array, **options)
whole, np.save = np.save, save
write(Path(sys.argv[2]), Path(sys.argv[1]), TINY.init(jax.random.key(0)))
"""


def test_a_killed_run_is_taken_up_and_ends_with_the_same_bytes(
    folder: Path, dataset: Path, variables: Variables, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert python(KILLED, dataset, out) == -signal.SIGKILL
    with pytest.raises(UserError, match="no finished features are here"):
        read_features(out, "train")
    shards = sorted((out / "train").glob("features-*"))
    assert len(shards) == 3 and not (out / "features.json").exists()
    shards[1].write_bytes(shards[1].read_bytes()[:-1])  # the disk was full, say
    before = [path.stat().st_mtime_ns for path in shards]
    write(out, dataset, variables)
    assert contents(out) == contents(folder)
    kept = [path.stat().st_mtime_ns == time for path, time in zip(shards, before, strict=True)]
    assert kept == [True, False, True]


def test_a_finished_folder_is_left_as_it_is(folder: Path, dataset: Path, variables: Variables) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write(folder, dataset, variables, batch=20)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("unfinished", [False, True])
def test_other_arguments_are_refused_by_name(
    unfinished: bool, folder: Path, dataset: Path, variables: Variables, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(folder, tmp_path / "out"))
    if unfinished:
        (out / ".unfinished").mkdir()
        (out / "features.json").rename(out / ".unfinished" / "features.json")
    before = contents(out)
    other = jax.tree.map(lambda leaf: leaf + 1, variables)
    for settings, message in [
        ({"flip": True}, r"flip False there, True here; choose another"),
        ({"precision": "bfloat16"}, r"precision float32 there, bfloat16 here; choose"),
        ({"image_size": (32, 16)}, r"image_size \[24, 16\] there, \[32, 16\] here; choose"),
        ({"variables": other}, r"in another way: weights \w{12} there, \w{12} here; choose"),
    ]:
        with pytest.raises(UserError, match=message):
            write(out, dataset, settings.pop("variables", variables), **settings)
    with pytest.raises(UserError, match=r"in another way: split query images 20, .* there, missing here; choose"):
        write_features(
            out, open_images(dataset, "train"), TINY, variables, image_size=SIZE, batch=16, images_per_shard=48
        )
    assert contents(out) == before
    write(out, dataset, variables)  # where only the card was missing, there is nothing to compute
    assert contents(out) == contents(folder)


def test_a_folder_of_something_else_is_refused(dataset: Path, variables: Variables, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for out in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(UserError, match="already holds something else"):
            write(out, dataset, variables)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_split_cannot_lead_out_of_the_folder(dataset: Path, variables: Variables, tmp_path: Path) -> None:
    splits = {"../other": open_images(dataset)["query"]}
    with pytest.raises(UserError, match=r"'\.\./other' cannot be a folder"):
        write_features(tmp_path / "out", splits, TINY, variables, image_size=SIZE)
    assert not any(tmp_path.iterdir())


class Trap:
    """What a hostile file would run."""

    def __reduce__(self) -> tuple:
        return os._exit, (13,)


#: What a card has of digests.
SIGNED = ("files", "digest")


def test_whatever_is_changed_in_a_folder_is_noticed(folder: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    before = read_features(folder, "train")
    out = Path(shutil.copytree(folder, tmp_path / "out"))
    for name in ("train/features-00002-of-00005.npy", "train/index.npy", "features.json"):
        whole = (folder / name).read_bytes()
        for place in random.integers(len(whole), size=30):
            (out / name).write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            try:
                after = read_features(out, "train")
            except UserError as error:
                assert len(str(error).splitlines()) == 1
            else:
                np.testing.assert_array_equal(after[0], before[0])
                np.testing.assert_array_equal(after[1], before[1])
                assert name == "features.json"  # its digest may have lost its name
        (out / name).write_bytes(whole)


def test_damaged_and_hostile_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    shard, index, card = "train/features-00002-of-00005.npy", "train/index.npy", "features.json"
    array, rows = np.load(folder / shard), np.load(folder / index)
    rows["number"][5] = 6
    whole = {name: value for name, value in json.loads((folder / card).read_text()).items() if name not in SIGNED}
    trap = tmp_path / "trap.npy"
    np.save(trap, np.array([Trap()] * 48), allow_pickle=True)
    cases = [
        (shard, None, "not there"),
        (shard, b"", "damaged"),
        (shard, (folder / shard).read_bytes()[:-4], "damaged"),
        (shard, trap.read_bytes(), "damaged"),
        (shard, pickle.dumps(Trap()), "damaged"),
        (shard, b"PK\3\4 no zip", "damaged"),
        (shard, array[1:], r"holds float32 \(47, 6\), not float32 \(48, 6\)"),
        (shard, array.astype(float), "holds float64"),
        (index, rows, "image numbers are not 0 to 199"),
        (index, array, "holds float32"),
        (card, None, "no finished features are here"),
        (card, b"[" * 100_000, "unreadable"),
        (card, b"[]", "unreadable"),
        (card, json.dumps({**whole, "width": "6"}).encode(), "unreadable"),
        (card, json.dumps({**whole, "images_per_shard": 0}).encode(), "unreadable"),
        (card, json.dumps({**whole, "format": 2}).encode(), "format 2 is not 1"),
        (card, json.dumps({**whole, "width": 7}).encode(), r"not float32 \(48, 7\)"),
    ]
    for number, (name, content, message) in enumerate(cases):
        out = Path(shutil.copytree(folder, tmp_path / str(number)))
        (out / card).write_text(json.dumps(whole))  # as an earlier release wrote it
        (out / name).unlink()
        if isinstance(content, np.ndarray):
            np.save(out / name, content)
        elif content is not None:
            (out / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_features(out, "train")
    with pytest.raises(UserError, match="no features of a split 'gallery'; it has train, query"):
        read_features(folder, "gallery")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as `cion pretrain` leaves it, as far as is needed here."""
    model = backbone("resnet18", image_size=SIZE)
    run = tmp_path_factory.mktemp("run")
    save(run / "teacher.safetensors", Weights(model, model.init(jax.random.key(0))))
    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Images in folders, and other things beside them."""
    source = Blocks(5)
    for number, name in enumerate(["b/2.png", "b/1.JPG", "a/c/x.jpeg", ".hidden/h.jpg", "b/.h.jpg"]):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.fromarray(source.pixels(number)).save(path)
        else:
            path.write_bytes(images.encode_jpeg(source.pixels(number)))
    (tmp_path / "pictures" / "notes.txt").touch()
    return tmp_path / "pictures"


def test_a_run_and_records_from_the_command_line(
    weights: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The teacher, as at evaluation, at the size that it was made for; its own file says the same."""
    out, options = tmp_path / "out", ["--split=query", "--flip", "--batch=20"]
    for source in (weights, weights / "teacher.safetensors"):
        assert main(["embed", str(source), str(dataset), str(out), *options]) == 0
        assert capsys.readouterr().out == f"{out}: features, 512 wide: 20 of query\n"
    result, _ = read_features(out, "query")
    expected = by_hand(load(source).variables, decoded(Records(dataset, "query")), backbone("resnet18"), flip=True)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    card = json.loads((out / "features.json").read_text())
    assert card["image_size"] == list(SIZE) and card["flip"] and list(card["splits"]) == ["query"]


def test_a_folder_of_images_keeps_their_names(pictures: Path, variables: Variables, tmp_path: Path) -> None:
    write_features(tmp_path / "out", open_images(pictures), TINY, variables, image_size=SIZE)
    result, labels = read_features(tmp_path / "out", "images")
    names = ["a/c/x.jpeg", "b/1.JPG", "b/2.png"]
    assert json.loads((tmp_path / "out" / "images" / "names.json").read_text()) == names
    assert all((labels[field] == -1).all() for field in FIELDS)
    pixels = np.stack([images.resize(images.decode((pictures / name).read_bytes()), *SIZE) for name in names])
    np.testing.assert_allclose(result, by_hand(variables, pixels), atol=2e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["{dataset}", "{dataset}", "{out}"],
            "not a run (none of best.safetensors, ",
        ),
        (["{out}", "{dataset}", "{out}"], "not there; name a file of weights"),
        (["{run}", "{dataset}", "{out}", "--split=gallery"], "no split 'gallery'; it has train, query"),
        (["{run}", "{pictures}", "{out}", "--split=train"], "has no split 'train'; leave --split out"),
        (["{run}", "{run}", "{out}"], "no .jpg, .jpeg or .png below this folder"),
        (["{run}", "{out}", "{out}"], "out: No such file or directory; name a folder of images"),
        (["{run}", "{dataset}", "{out}", "--batch=0"], "batch 0"),
        (["{run}", "{dataset}", "{out}", "--image-size", "0", "16"], "resnet18 cannot take images of 0x16"),
        (["{run}", "{dataset}", "{out}", "--image-size", "-8", "16"], "resnet18 cannot take images of -8x16"),
    ],
)
def test_mistakes_are_answered_with_one_line(
    arguments: list[str],
    message: str,
    weights: Path,
    dataset: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"run": weights, "dataset": dataset, "pictures": pictures, "out": tmp_path / "out"}
    assert main(["embed", *(argument.format(**places) for argument in arguments)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("cion: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_image_that_does_not_decode_is_named_and_can_be_mended(
    pictures: Path, variables: Variables, tmp_path: Path
) -> None:
    good = (pictures / "b/1.JPG").read_bytes()
    (pictures / "b/1.JPG").write_bytes(good[:150] + bytes(len(good) - 150))
    size = {"image_size": SIZE}
    with pytest.raises(UserError, match=r"b/1\.JPG: .*; mend or remove it"):
        write_features(tmp_path / "out", open_images(pictures), TINY, variables, **size)
    (pictures / "b/1.JPG").write_bytes(good)
    write_features(tmp_path / "out", open_images(pictures), TINY, variables, **size)
    (pictures / "b/1.JPG").write_bytes(good + b"more")
    with pytest.raises(UserError, match="holds features made in another way: split images images 3, fingerprint"):
        write_features(tmp_path / "out", open_images(pictures), TINY, variables, **size)
    (pictures / "b/1.JPG").unlink()
    (pictures / "b/1.JPG").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"b/1\.JPG: not a file"):
        ImageFolder(pictures)
