"""Cards that were damaged, that lie, and that are older; and the files that TFDS reads."""

import json
from pathlib import Path
from typing import Any

import pytest

from cion_jax.cli import main
from cion_jax.data import dataset as layout
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from tfrecords_tools.check import problems


def edit(folder: Path, *keys: str, value: Any, keep: bool = False) -> None:
    """Set a value in the card, and leave the digests out unless they are kept."""
    path = folder / layout.CARD
    card = json.loads(path.read_text())
    place = card
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    if not keep:
        del card["digest"]
    path.write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("splits", "train", "left_out"), 3),
        (("splits", "query", "bytes"), 5),
        (("plan", "images_per_shard"), 41),
        (("files", "features.json"), "0" * 64),
        (("format",), 1.0),
    ],
)
def test_a_changed_card_is_refused_by_all(keys: tuple[str, ...], value: Any, own_dataset: Path) -> None:
    edit(own_dataset, *keys, value=value, keep=True)
    with pytest.raises(UserError, match=r"cion\.json: not as it was written .*remove the digest if you changed"):
        Records(own_dataset)
    assert main(["data", "check", str(own_dataset)]) == 1


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("splits", "train", "shards"), [40, 40, 40, 80, 0], "images are not in the shards"),
        (("splits", "train", "bytes"), 1, "bytes where cion.json says 1"),
        (("splits", "train", "fingerprint"), "0" * 64, "fingerprints differ"),
    ],
)
def test_a_card_that_lies_about_the_index_opens_nothing(
    keys: tuple[str, ...], value: Any, message: str, own_dataset: Path
) -> None:
    edit(own_dataset, *keys, value=value)
    with pytest.raises(UserError, match=message):
        Records(own_dataset)
    assert any(message in problem for problem in problems(own_dataset))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("splits",), []),
        (("splits", "train"), None),
        (("splits", "train"), {}),
        (("splits", "train", "shards"), 5),
        (("splits", "train", "shards"), ["40"] * 5),
        (("splits", "train", "shards"), [True] * 5),
        (("splits", "train", "shards"), [200, -1, 1, 0, 0]),
        (("splits", "train", "shards"), [1e300] * 5),
        (("splits", "train", "bytes"), "many"),
        (("splits", "train", "left_out"), -1),
        (("splits", "train", "fingerprint"), 7),
        (("splits", "train", "other"), 7),
        (("plan",), 3),
        (("files",), []),
        (("splits", "../train"), {"shards": [], "bytes": 0, "fingerprint": ""}),
    ],
)
def test_values_of_other_types_are_one_line(
    keys: tuple[str, ...], value: Any, own_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(own_dataset, *keys, value=value)
    for command in ("check", "stats"):
        assert main(["data", command, str(own_dataset)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"cion: {own_dataset / layout.CARD}: unreadable (")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": NaN}', "9" * 5000, "\xff", '{"format": 1, "splits": {'])
def test_text_that_is_no_card_is_one_line(text: str, own_dataset: Path) -> None:
    (own_dataset / layout.CARD).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"cion\.json: unreadable \(.*\); copy or write the dataset again$"):
        Records(own_dataset)


def test_check_compares_the_card_with_its_plan(own_dataset: Path) -> None:
    edit(own_dataset, "splits", "train", "left_out", value=3)
    (problem,) = problems(own_dataset)
    assert problem.endswith("split train has 200 images and 3 left out, and 200 were planned")


@pytest.mark.parametrize("name", layout.TFDS)
def test_what_tfds_reads_is_compared_with_its_digest(name: str, own_dataset: Path) -> None:
    path = own_dataset / name
    whole = path.read_text()
    path.write_text(whole.replace("int64", "int32").replace('"40"', '"41"') + "\n")
    assert [*problems(own_dataset)] == [
        f"{path}: not as it was written (its digest differs); copy or write the dataset again"
    ]
    path.unlink()
    assert [*problems(own_dataset)] == [f"{path}: not there; copy or write the dataset again"]


def test_one_damaged_index_does_not_hide_the_other_split(own_dataset: Path) -> None:
    layout.index_path(own_dataset, "train").write_bytes(b"\x93NUMPY")
    shard = layout.shard_path(own_dataset, "query", 0, 1)
    shard.write_bytes(shard.read_bytes()[:-1])
    lines = "\n".join(problems(own_dataset))
    assert "cion-train.index.npy: damaged" in lines and f"{shard} at byte" in lines


def test_a_shard_too_many_is_named(own_dataset: Path) -> None:
    stray = layout.shard_path(own_dataset, "train", 5, 6)
    stray.write_bytes(b"")
    assert [*problems(own_dataset)] == [f"{stray}: no shard of this dataset; move it away"]


def test_an_older_dataset_opens_and_check_says_what_it_could_not_compare(
    own_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own_dataset / layout.CARD
    card = json.loads(path.read_text())
    path.write_text(json.dumps({name: card[name] for name in ("format", "splits", "plan")}))
    assert len(Records(own_dataset)) == 200
    assert main(["data", "check", str(own_dataset)]) == 0
    line, count = capsys.readouterr().out.splitlines()
    assert "the card has no digest of cion-query.index.npy, cion-train.index.npy, cion.json, dataset_info.json" in line
    assert count.endswith("0 problems found")
