"""An index that is not the one which the card describes is used by nobody."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cion_jax.cli import main
from cion_jax.config import Writing
from cion_jax.data import dataset as layout
from cion_jax.data.dataset import INDEX
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from sources import Blocks
from tfrecords_tools.check import problems


def change(folder: Path, name: str, row: int, value: int) -> None:
    path = layout.index_path(folder, "train")
    index = np.load(path)
    index[name][row] = value
    np.save(path, index)


def agree(folder: Path) -> None:
    """Make the card describe the index, as a writer that got it wrong would have."""
    splits, plan = layout.read_card(folder)
    train = replace(splits["train"], fingerprint=layout.fingerprint(np.load(layout.index_path(folder, "train"))))
    layout.write_card(folder / layout.CARD, splits | {"train": train}, plan, {})


@pytest.mark.parametrize("name", INDEX.names or ())
def test_one_changed_number_is_noticed_when_a_dataset_is_opened(name: str, own_dataset: Path) -> None:
    change(own_dataset, name, 50, int(Records(own_dataset).index[name][50]) ^ 1)
    with pytest.raises(UserError, match=r"cion-train\.index\.npy: .*; see `cion data check`"):
        Records(own_dataset)
    assert Records(own_dataset, "query")[0].source
    assert any("index.npy" in problem for problem in problems(own_dataset))


def test_no_command_uses_it(own_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(own_dataset, "identity", 50, 9)
    before = sorted(tmp_path.iterdir())
    commands = [
        ["data", "stats", str(own_dataset)],
        ["data", "sheet", str(own_dataset), str(tmp_path / "sheet.png")],
        ["data", "repack", str(own_dataset), str(tmp_path / "out")],
        ["pretrain", "debug", f"--data={own_dataset}", f"--out={tmp_path / 'run'}"],
    ]
    for command in commands:
        assert main(command) == 1
        output = capsys.readouterr()
        assert "fingerprints differ" in output.err and not output.out
    assert sorted(tmp_path.iterdir()) == before


def test_rows_that_were_appended_or_cut_off_are_damage(own_dataset: Path) -> None:
    path = layout.index_path(own_dataset, "train")
    whole = path.read_bytes()
    for data, message in [
        (whole + b"\0" * 40, "8,040 bytes of numbers where the header claims 8,000"),
        (whole + b"x", "8,001 bytes"),
        (whole[:-1], "7,999 bytes"),
    ]:
        path.write_bytes(data)
        with pytest.raises(UserError, match=message):
            Records(own_dataset)
        assert message in "".join(problems(own_dataset))


@pytest.mark.parametrize("claimed", [b"(0,)", b"(-1,)", b"(1e9,)", b"(200,2)", b"200", b"(2**99,)", b"'200'"])
def test_a_header_that_claims_something_else(claimed: bytes, own_dataset: Path) -> None:
    path = layout.index_path(own_dataset, "train")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(200,)", claimed.ljust(6)))
    with pytest.raises(UserError, match=r"index\.npy: "):
        Records(own_dataset)


def test_a_record_whose_labels_the_index_tells_otherwise_is_not_repacked(own_dataset: Path, tmp_path: Path) -> None:
    change(own_dataset, "identity", 50, 9)
    agree(own_dataset)
    assert main(["data", "repack", str(own_dataset), str(tmp_path / "out"), "--workers=1"]) == 1
    assert not (tmp_path / "out" / layout.CARD).exists()


def test_a_length_that_no_shard_has_takes_no_memory(own_dataset: Path) -> None:
    change(own_dataset, "length", 50, 2**32 - 1)
    change(own_dataset, "offset", 51, 2**64 - 1)
    lines = [*problems(own_dataset)]
    assert any("image 50" in line and "no record of 4,294,967,295 bytes" in line for line in lines)
    assert any("image 51" in line and "no record of" in line for line in lines)


def test_a_split_whose_images_were_all_left_out_is_still_a_split(tmp_path: Path) -> None:
    writing = Writing(20, workers=1, skip_damaged=True)
    write_dataset(tmp_path / "out", {"train": Blocks(30), "query": Blocks(2, damaged=(0, 1))}, writing)
    assert len(Records(tmp_path / "out", "query")) == 0 and not [*problems(tmp_path / "out")]
