"""The command as a user meets it: exit codes, one-line errors, help, settings files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cion_jax.cli import COMMANDS, main
from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.xla import avoid_faults
from sources import contents

TINY = [
    "--identities=6",
    "--videos=4",
    "--cameras=2",
    "--test-identities=2",
    "--distractors=3",
    "--height=64",
    "--width=32",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "world"
    assert main(["data", "synth", str(out), *TINY, "--workers=1"]) == 0
    return out


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a user's mistake is answered with."""
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("cion: ") and error.count("\n") == 1
    return error


def test_a_drawn_world_is_sound_and_its_truth_stands_apart(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(world)]) == 0
    assert capsys.readouterr().out == f"{world}: 0 problems found\n"
    records = Records(world)
    truth = read_labelling(world / "truth.npz", records.card.fingerprint)
    assert len(truth) == len(records) and set(truth) <= set(range(-1, 6)) and len(set(truth)) > 3
    assert (np.asarray(records.index["identity"]) == -1).all()


def test_check_lists_problems_and_exits_with_one(own_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Records(own_dataset).shard_path(1).unlink()
    assert main(["data", "check", str(own_dataset)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"{own_dataset}: 1 problem found"


def test_stats_as_table_and_json(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "stats", str(world)]) == 0
    assert "images per tracklet" in capsys.readouterr().out
    assert main(["data", "stats", str(world), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train"]["images"] == len(Records(world))


def test_sheet_and_repack(world: Path, tmp_path: Path) -> None:
    labels = ["--labels", str(world / "truth.npz")]
    assert main(["data", "sheet", str(world), str(tmp_path / "people.png"), *labels, "--rows=3", "--columns=4"]) == 0
    with Image.open(tmp_path / "people.png") as sheet:
        assert sheet.size[1] < 500 and np.asarray(sheet).std() > 20
    assert (
        main(["data", "repack", str(world), str(tmp_path / "new"), "--order=grouped", *labels, "--size", "32", "16"])
        == 0
    )
    assert main(["data", "check", str(tmp_path / "new")]) == 0


def test_import_runs_the_importer_and_the_writer(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "video" / "tracklet"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (16, 32), (number, 0, 0)).save(folder / f"{number}.png")
    command = ["data", "import", "folders", str(tmp_path / "source"), str(tmp_path / "out")]
    assert main([*command, "--images-per-shard=2"]) == 0
    records = Records(tmp_path / "out")
    assert [record.source for record in records] == [f"video/tracklet/{number}.png" for number in range(3)]
    assert records.card.shards == (2, 1)


def test_a_settings_file_gives_the_defaults_and_options_override_it(tmp_path: Path) -> None:
    options = dict(option.removeprefix("--").split("=") for option in TINY)
    fields = ", ".join(f"{name.replace('-', '_')}={value}" for name, value in options.items())
    settings = tmp_path / "tiny.py"
    settings.write_text(f"from cion_jax.config import World\nsettings = World({fields}, seed=3)\n")
    assert main(["data", "synth", str(tmp_path / "a"), "--settings", str(settings)]) == 0
    assert main(["data", "synth", str(tmp_path / "b"), *TINY, "--seed=3"]) == 0
    assert main(["data", "synth", str(tmp_path / "c"), f"--settings={settings}", "--seed=4"]) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != contents(tmp_path / "c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "defines no `settings`"),
        ("settings = 7", "no command takes settings of type int"),
        ("settings = 1 / 0", "ZeroDivisionError"),
        ("settings =", "SyntaxError"),
        (None, "FileNotFoundError"),
    ],
)
def test_a_bad_settings_file_is_explained(
    text: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "settings.py"
    if text is not None:
        path.write_text(text)
    assert message in refused(["data", "synth", str(tmp_path / "out"), f"--settings={path}"], capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "check", "{tmp}/nowhere"],
        ["data", "stats", "{tmp}"],
        ["data", "sheet", "{world}", "{tmp}/x.png", "--split=gallory"],
        ["data", "sheet", "{world}", "{tmp}/x.png", "--by=colour"],
        ["data", "sheet", "{world}", "{tmp}/x.png", "--by=tracklet", "--rows=0"],
        ["data", "sheet", "{world}", "{tmp}/x.png"],
        ["data", "sheet", "{world}", "{tmp}/x.png", "--labels={tmp}/none.npz"],
        ["data", "sheet", "{world}", "{tmp}/no/such/folder/x.png", "--by=tracklet"],
        ["data", "repack", "{world}", "{world}"],
        ["data", "repack", "{world}", "{tmp}/x", "--order=grouped", "--labels={tmp}/none.npz"],
        ["data", "synth", "{tmp}/x", "--images-per-shard=0"],
        ["data", "synth", "{tmp}/x", "--cameras=1"],
        ["data", "import", "folders", "{tmp}", "{tmp}/x"],
        ["data", "import", "folders", "{tmp}/nowhere", "{tmp}/x"],
    ],
    ids=" ".join,
)
def test_mistakes_are_answered_with_one_line(
    arguments: list[str], world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused([argument.format(tmp=tmp_path, world=world) for argument in arguments], capsys)
    assert list(tmp_path.iterdir()) == []


def test_unknown_arguments_end_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", "synth", "out", "--identitys=3"])
    assert ended.value.code == 2


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    def walk(tree: dict, path: list[str]) -> None:
        for name, command in tree.items():
            with pytest.raises(SystemExit) as ended:
                main([*path, name, "--help"])
            assert ended.value.code == 0
            assert len(capsys.readouterr().out) > 200
            if isinstance(command, dict):
                walk(command, [*path, name])

    walk(COMMANDS, [])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "--xla_gpu_enable_triton_gemm=false"),
        ("--xla_flag=1", "--xla_flag=1 --xla_gpu_enable_triton_gemm=false"),
        ("--xla_gpu_enable_triton_gemm=true", "--xla_gpu_enable_triton_gemm=true"),
    ],
    ids=["none", "another", "its own"],
)
def test_what_the_compiler_fails_on_is_left_out_unless_flags_speak_of_it(
    before: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", before)
    avoid_faults()
    assert os.environ["XLA_FLAGS"] == after
