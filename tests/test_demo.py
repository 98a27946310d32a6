"""The demo so small that its figures mean nothing: it tells what it did, goes on when killed, and averages."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cion_jax.cli import COMMANDS, main
from cion_jax.config import Augmentation, World, Writing
from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.demo import histograms as colour
from cion_jax.demo import plan as plans
from cion_jax.demo import run_world as run_world_module
from cion_jax.demo.histograms import histograms, whitening
from cion_jax.demo.page import YOUR_OWN
from cion_jax.demo.plan import DEFAULT, FULL, QUICK, Plan
from cion_jax.demo.run_world import RANDOM, RUNS, STARTS, WorldResults, first_weights, run_world, settings_of
from cion_jax.demo.tables import (
    SCORES,
    about_differences,
    agreement_rows,
    difference,
    difference_rows,
    finetuned_rows,
    interval,
    score_rows,
    spread,
)
from cion_jax.evaluate.clustering_metrics import agreement
from cion_jax.run.journal import read_metrics
from cion_jax.run.plan import check_training
from cion_jax.run.pretraining import check, check_sizes, model_of
from cion_jax.weights.file import load
from tfrecords_tools.world import build
from tfrecords_tools.world.settings import check as check_world
from tiny_pretrain import stand_in

pytestmark = pytest.mark.xdist_group("demo")

TINY = replace(
    QUICK,
    world=World(
        identities=6, videos=4, cameras=2, length=5, test_identities=3, distractors=4, height=32, width=16, switches=0.2
    ),
    training=replace(
        QUICK.training,
        backbone="tiny",
        epochs=2,
        batch=16,
        image_size=(32, 16),
        head=replace(QUICK.training.head, prototypes=64, hidden=16, bottleneck=8, block=64),
        threads=1,
    ),
    finetuning=replace(
        QUICK.finetuning,
        backbone="tiny",
        epochs=2,
        image_size=(32, 16),
        augmentation=Augmentation(size=(32, 16), pad=2),
        identities_share=0.7,
        threads=1,
    ),
)
CONTESTANTS = [
    "colour histograms",
    "histograms, whitened",
    "random weights",
    "instance level",
    "tracklet level",
    "identity level",
    "true labels (ceiling)",
]


@pytest.fixture(scope="module", autouse=True)
def tiny() -> None:
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        patch.setattr(plans, "QUICK", TINY)
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two worlds, the first of which was killed on its way."""
    out = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        train = run_world_module.pretrain

        def dies(settings: object, data: Path, run: Path) -> bool:
            if run.name == "identity":
                raise KeyboardInterrupt
            return train(settings, data, run)

        patch.setattr(run_world_module, "pretrain", dies)
        assert main(["demo", str(out), "--quick", "--seeds=2"]) == 130
    assert (out / "seed-0" / "tracklet" / "teacher.safetensors").exists() and not (out / "report.html").exists()
    assert main(["demo", str(out), "--quick", "--seeds=2"]) == 0
    return out


@pytest.fixture(scope="module")
def worlds(out: Path) -> list[WorldResults]:
    return [run_world(out / f"seed-{seed}", TINY, seed) for seed in (0, 1)]


def test_it_leaves_a_page_and_the_best_weights(out: Path, worlds: Sequence[WorldResults]) -> None:
    text = (out / "report.html").read_text()
    for what in (*CONTESTANTS, "raw tracklets", "level 3: across videos", "means over 2 drawn worlds", "A switch:"):
        assert what in text
    assert "true labels of the same 70% of the people" in text and "more than random weights" in text
    best = max(("instance", "tracklet", "identity"), key=lambda run: worlds[0].scores(RUNS[run]).mean_average_precision)
    own, saved = load(out / "seed-0" / best / "teacher.safetensors"), load(out / "best.safetensors")
    assert saved.network.name == own.network.name
    kernel = np.asarray(saved.variables["params"]["conv1"]["kernel"])
    np.testing.assert_array_equal(kernel, own.variables["params"]["conv1"]["kernel"])


def test_runs_differ_in_who_is_one_person_and_in_nothing_else(out: Path) -> None:
    folder = out / "seed-1"
    settings = [json.loads((folder / run / "settings.json").read_text()) for run in RUNS]
    others = [{name: value for name, value in each.items() if name not in ("level", "labels")} for each in settings]
    assert all(each == others[0] for each in others)
    assert [each["level"] for each in settings] == ["instance", "tracklet", "identity", "identity"]
    assert [each["labels"] for each in settings] == [None, None, None, str(folder / "world" / "truth.npz")]
    steps = {len((folder / run / "metrics.jsonl").read_text().splitlines()) for run in RUNS}
    assert steps == {2 * -(-len(Records(folder / "world")) // TINY.training.batch)}
    first = [first_weights(settings_of(run, TINY, 1, folder / "world")).variables["params"]["conv1"] for run in RUNS]
    assert all(np.array_equal(each["kernel"], first[0]["kernel"]) for each in first)


def test_fine_tunings_differ_in_what_they_begin_with_and_in_nothing_else(out: Path) -> None:
    folder = out / "seed-1"
    runs = {name: folder / "finetuned" / (run or "random") for name, run in STARTS.items()}
    settings = [json.loads((run / "settings.json").read_text()) for run in runs.values()]
    teachers = [str(folder / run / "teacher.safetensors") for run in ("instance", "tracklet", "identity")]
    assert [each.pop("weights") for each in settings] == [None, *teachers]
    assert all(each == settings[0] for each in settings) and settings[0]["seed"] == 1
    journals = [read_metrics(run / "metrics.jsonl") for run in runs.values()]
    assert [len(rows) for rows in journals] == [4] * 4
    assert len({rows[0]["loss"] for rows in journals}) == 4


def test_tables_of_fine_tuning(worlds: Sequence[WorldResults]) -> None:
    rows = finetuned_rows(worlds)
    assert [row[0] for row in rows] == CONTESTANTS[2:6]
    assert [row[1] for row in rows] == [row[1] for row in score_rows(worlds)[2:6]]
    after = [[100 * world.finetuned[name].mean_average_precision for world in worlds] for name in CONTESTANTS[2:6]]
    assert [row[2] for row in rows] == [spread(each, 1) for each in after]
    assert rows[0][3] == "" and rows[3][3] == difference(list(np.subtract(after[3], after[0])))


def test_only_the_identity_level_makes_labels_and_they_are_held_against_the_truth(
    out: Path, worlds: Sequence[WorldResults]
) -> None:
    folder = out / "seed-0"
    made = {run: sorted((folder / run).glob("labels/*.npz")) for run in RUNS}
    assert [run for run in RUNS if made[run]] == ["identity"]
    records = Records(folder / "world")
    trained_with, truth = (
        read_labelling(path, records.card.fingerprint, len(records))
        for path in (*made["identity"], folder / "world" / "truth.npz")
    )
    agreements = worlds[0].labels.agreements
    denoised = worlds[0].labels.denoised
    levels = [name for name in agreements if name.startswith("level")]
    assert [*agreements] == ["raw tracklets", *levels, "in the run, from epoch 1"] and len(levels) == 3
    assert agreements["raw tracklets"] == agreement(np.array(records.index["tracklet"]), truth)
    assert agreements[levels[-1]] == agreement(denoised.labels, truth)
    assert agreements["in the run, from epoch 1"] == agreement(trained_with, truth)


def test_the_ceiling_is_never_the_best(worlds: Sequence[WorldResults]) -> None:
    world = worlds[0]
    zeros = np.zeros_like(world.results[RANDOM].precision)
    results = {name: each._replace(precision=zeros) for name, each in world.results.items()}
    results[RUNS["tracklet"]] = results[RUNS["tracklet"]]._replace(precision=zeros + 0.1)
    results[RUNS["truth"]] = results[RUNS["truth"]]._replace(precision=zeros + 1)
    assert world._replace(results=results).best() == "tracklet"


def test_every_part_is_announced(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    networks = [*(out / "seed-0").glob("finetuned/*/finetuned.safetensors")]
    written = [network.stat().st_mtime_ns for network in networks]
    run_world(out / "seed-0", TINY, 0)
    assert len(written) == 4 and [network.stat().st_mtime_ns for network in networks] == written
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("==")]
    assert [line.split(":")[0] for line in lines] == [f"== {part} of 8" for part in range(1, 9)]


def test_every_seed_is_a_world_of_its_own(out: Path) -> None:
    prints = {
        Records(out / f"seed-{seed}" / "world", split).card.fingerprint
        for seed in (0, 1)
        for split in ("train", "query")
    }
    assert len(prints) == 4


def test_tables_are_means_over_worlds(worlds: Sequence[WorldResults]) -> None:
    rows = score_rows(worlds)
    assert [row[0] for row in rows] == CONTESTANTS
    identity, tracklet = (
        [100 * world.scores(name).mean_average_precision for world in worlds]
        for name in ("identity level", "tracklet level")
    )
    assert rows[5][1] == f"{np.mean(identity):.1f} ± {np.std(identity, ddof=1):.1f}"
    assert [row[0] for row in difference_rows(worlds)] == [
        "identity level - tracklet level",
        "tracklet level - instance level",
    ]
    assert difference_rows(worlds)[0][1] == difference([a - b for a, b in zip(identity, tracklet, strict=True)])
    assert all(len(row) == 1 + len(SCORES) for row in (*rows, *difference_rows(worlds)))
    assert [row[0][:7] for row in agreement_rows(worlds)[:4]] == ["raw tra", "level 1", "level 2", "level 3"]
    assert spread([0.5]) == "0.500" and spread([1.0, 2.0], 1) == "1.5 ± 0.7"


def test_intervals_are_those_of_student() -> None:
    """By hand: the mean 2 +- 4.302653 x 1 / sqrt(3), and 0.5 +- 12.706205 x sqrt(1/2) / sqrt(2)."""
    np.testing.assert_allclose(interval([1.0, 2.0, 3.0]), (-0.484138, 4.484138), atol=1e-5)
    np.testing.assert_allclose(interval([0.0, 1.0]), (-5.853102, 6.853102), atol=1e-5)
    assert difference([1.0, 2.0, 3.0]) == "+2.0 [-0.5, +4.5]"
    assert difference([-1.0]) == "-1.0" and "no interval" in about_differences(1)


def test_histograms_see_colours_and_heights_but_not_sides(tmp_path: Path) -> None:
    drawn = build(World(identities=2, videos=1, test_identities=3, distractors=0, height=32, width=16, quality=100))
    write_dataset(tmp_path / "world", {"query": drawn["query"]}, Writing(workers=1))
    records = Records(tmp_path / "world", "query")

    class Mirrored:
        def __len__(self) -> int:
            return len(records)

        def pixels_into(self, out: np.ndarray, number: int, kernel: str = "bilinear") -> None:
            records.pixels_into(out, number)
            out[:] = out[:, ::-1]

    features = histograms(records, (32, 16))
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(histograms(Mirrored(), (32, 16)), features)  # type: ignore[arg-type]
    assert (features @ features.T - np.eye(len(features)) < 0.999).all()


def test_whitened_rows_vary_alike_in_all_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colour, "SHRINKAGE", 0.0)
    random = np.random.default_rng(0)
    rows = random.normal(size=(500, 5)) @ random.normal(size=(5, 5)) + 3
    whiten = whitening(rows)
    np.testing.assert_allclose(np.cov((rows - whiten.mean) @ whiten.matrix, rowvar=False), np.eye(5), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(whiten(rows[:9]), axis=1), 1, atol=1e-6)


def test_whitening_is_learned_from_training_images_alone(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    monkeypatch.setattr(run_world_module, "whitening", lambda rows: seen.append(rows) or whitening(rows))
    run_world_module.histogram_features(out / "seed-0" / "world", (32, 16))
    np.testing.assert_array_equal(*seen, histograms(Records(out / "seed-0" / "world", "train"), (32, 16)))


@pytest.mark.parametrize("plan", [DEFAULT, QUICK, FULL], ids=["default", "quick", "full"])
def test_every_plan_can_be_run(plan: Plan) -> None:
    """As far as can be told without running it; budgets and beginnings of the levels are one setting."""
    check_world(plan.world)
    check(plan.training, 1)
    check_sizes(plan.training, model_of(plan.training))
    assert plan.training.image_size == (plan.world.height, plan.world.width)
    tuning = plan.finetuning
    check_training(tuning, 1, {tuning.instances})
    assert tuning.backbone == plan.training.backbone
    assert tuning.image_size == tuning.augmentation.size == plan.training.image_size
    assert plan.world.identities * tuning.identities_share >= tuning.batch / tuning.instances


@pytest.mark.parametrize("line", YOUR_OWN.splitlines())
def test_commands_for_ones_own_video_are_there(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = shlex.split(line, comments=True)
    tree, path = COMMANDS, []
    while isinstance(tree, dict):
        path.append(words[len(path)])
        tree = tree[path[-1]]
    with pytest.raises(SystemExit, match="0"):
        main([*path, "--help"])
    text = capsys.readouterr().out
    assert program == "cion" and all(word in text for word in words if word.startswith("--"))


def test_mistakes_are_answered_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in [(["--seeds=0"], "--seeds 0"), (["--quick", "--full"], "choose one of the two")]:
        assert main(["demo", str(tmp_path / "out"), *options]) == 1
        assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
