"""The command as a user meets it: exit codes, one-line errors, help, settings files."""

import functools
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cion_jax
from cion_jax import cli
from cion_jax.cli import COMMANDS, main
from cion_jax.commands.pretrain import pretrain
from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.recipes import RECIPES
from cion_jax.xla import avoid_faults, silence
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
    truth = read_labelling(world / "truth.npz", records.card.fingerprint, len(records))
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


def test_a_sheet_without_identities_is_of_tracklets_in_the_format_of_its_name(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "sheet", str(world), str(tmp_path / "a.jpg"), "--rows=2", "--columns=2"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.jpg'}: written, with a row for each tracklet\n"
    with Image.open(tmp_path / "a.jpg") as sheet:
        assert sheet.format == "JPEG"
    assert "a.gif: does not end like a picture" in refused(["data", "sheet", str(world), "a.gif"], capsys)


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
    for out, arguments in {
        "a": ["--settings", str(settings)],
        "b": [*TINY, "--seed=3"],
        "c": [f"--settings={settings}", "--seed=4"],
    }.items():
        assert main(["data", "synth", str(tmp_path / out), *arguments, "--workers=1"]) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != contents(tmp_path / "c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "`settings` is None; make it a cion_jax.config.World"),
        ("settings = 7", "`settings` is 7; make it a cion_jax.config.World"),
        ("settings = 1 / 0", "ZeroDivisionError"),
        ("settings =", "SyntaxError"),
        (None, "not there; name a Python file that defines `settings`"),
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


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `cion pretrain` was asked to do, without doing it."""
    asked: dict[str, Any] = {}

    @functools.wraps(pretrain)
    def record(**arguments: Any) -> int:
        asked.update(arguments)
        return 0

    monkeypatch.setattr(cli, "pretrain", record)
    monkeypatch.setitem(COMMANDS, "pretrain", record)
    return asked


@pytest.mark.parametrize(
    "arguments",
    [
        ["debug", "--data=DATA", "--out=OUT", "--epochs=7"],
        ["--data=DATA", "--out=OUT", "--epochs=7", "debug"],
        ["--data", "DATA", "debug", "--out", "OUT", "--epochs", "7"],
        ["--epochs", "7", "--image-size", "64", "32", "debug", "--data", "DATA", "--out", "OUT"],
        ["--data=DATA", "--out=OUT", "--epochs=7", "own.py"],
    ],
    ids=" ".join,
)
def test_the_experiment_is_found_wherever_it_stands(
    arguments: list[str], started: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usage line puts it last; people put it first."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text("from cion_jax.recipes import RECIPES\nsettings = RECIPES['debug']\n")
    assert main(["pretrain", *arguments]) == 0
    assert started["settings"] == replace(RECIPES["debug"], epochs=7)
    assert str(started["data"]) == "DATA" and str(started["out"]) == "OUT"


def test_a_folder_with_the_name_of_an_experiment_is_none(started: dict[str, Any]) -> None:
    assert main(["pretrain", "--data", "small", "--out", "debug", "vit_tiny"]) == 0
    assert started["settings"] == RECIPES["vit_tiny"]


@pytest.mark.parametrize("name", ["debugg", "", "none.py"])
def test_an_experiment_that_does_not_exist_is_refused_wherever_it_stands(
    name: str, started: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data=DATA", "--out=OUT"]
    first = refused(["pretrain", name, *options], capsys)
    assert refused(["pretrain", *options, name], capsys) == first
    assert name in first and not started


def test_a_run_without_an_experiment_is_refused(started: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", "--data=DATA", "--out=OUT"])
    assert ended.value.code == 2 and not started
    assert "EXPERIMENT" in capsys.readouterr().err


def test_help_lists_the_experiments_and_shows_the_values_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    def help_of(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["pretrain", *arguments])
        assert ended.value.code == 0
        return " ".join(capsys.readouterr().out.replace("│", " ").split())

    assert all(name in help_of("--help") for name in RECIPES)
    for arguments in (["debug", "--help"], ["-h", "--data", "DATA", "debug"]):
        assert "at least once" in help_of(*arguments)
        assert "schedules count in epochs. (default: 2)" in help_of(*arguments)


def test_an_option_by_its_old_name_works_and_names_the_new_one(
    started: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for stream in (["--stream", "3"], ["--stream=3"]):
        assert main(["pretrain", "debug", "--data=DATA", "--out=OUT", *stream]) == 0
        assert started["settings"] == replace(RECIPES["debug"], shuffle_window=3)
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "--stream is called --shuffle-window now" in error


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["pretrian", "debug"], "cion: no command is called 'pretrian'; did you mean pretrain?\n"),
        (["data", "import", "folder"], "cion data import: no command is called 'folder'; did you mean folders?\n"),
        (["xyz"], f"cion: no command is called 'xyz'; there are {', '.join(COMMANDS)}\n"),
    ],
    ids=["near", "deep", "far"],
)
def test_a_mistyped_command_is_answered_with_the_near_one(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err == line


def test_a_group_without_a_command_is_answered_with_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["data"], ["data", "import"]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert main([*words, "--help"]) == 0
        assert capsys.readouterr().out == error


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cion {cion_jax.__version__}\n"


def test_unknown_arguments_end_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", "synth", "out", "--identitys=3"])
    assert ended.value.code == 2


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    def walk(tree: dict, path: list[str]) -> None:
        for name, command in tree.items():
            try:
                code = main([*path, name, "--help"])
            except SystemExit as ended:  # tyro's way
                code = ended.code
            assert code == 0 and len(capsys.readouterr().out) > 200
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


def test_what_xla_logs_stays_silent_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Level 3 leaves only what ends the process; a compilation that takes two minutes is told of at level 2."""
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    assert main(["--version"]) == 0
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    silence()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
