"""The demo so small that its figures mean nothing: it tells what it did, goes on when killed, and averages."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import FAMILY

from cion_jax.cli import main
from cion_jax.config import Denoising, World, Writing
from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.demo import plan as plans
from cion_jax.demo.histograms import histograms
from cion_jax.demo.plan import DEFAULT, FULL, QUICK, Plan
from cion_jax.demo.story import tell
from cion_jax.demo.tables import agreement_rows, score_rows, spread
from cion_jax.denoise.labelling import check_settings
from cion_jax.evaluate.agreement import agreement
from cion_jax.evaluate.retrieval import scores
from cion_jax.models.zoo import ZOO
from cion_jax.pretrain import loop
from cion_jax.pretrain.plan import check, check_sizes, model_of
from cion_jax.torch_io.weights import load
from tfrecords_tools.world import build
from tfrecords_tools.world.settings import check as check_world

pytestmark = pytest.mark.xdist_group("demo")

TINY = replace(
    QUICK,
    world=World(
        identities=6, videos=4, cameras=2, length=5, test_identities=3, distractors=4, height=32, width=16, bad_boxes=0
    ),
    training=replace(
        QUICK.training,
        backbone="tiny",
        epochs=1,
        batch=16,
        image_size=(32, 16),
        head=replace(QUICK.training.head, prototypes=64, hidden=16, bottleneck=8, block=64),
        threads=1,
    ),
    denoising=Denoising(sigma=1.0, tau=0.001),
)
CONTESTANTS = ["colour histograms", "random weights", "instance level", "tracklet level", "identity level"]


@pytest.fixture(scope="module", autouse=True)
def tiny() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ZOO, "tiny", FAMILY)
        patch.setattr(plans, "QUICK", TINY)
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stories, the first of which was killed on its way."""
    out = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        train = loop.pretrain

        def dies(settings: object, data: Path, run: Path) -> bool:
            if run.name == "identity":
                raise KeyboardInterrupt
            return train(settings, data, run)

        patch.setattr("cion_jax.demo.story.pretrain", dies)
        assert main(["demo", str(out), "--quick", "--seeds=2"]) == 130
    assert (out / "seed-0" / "instance" / "teacher.safetensors").exists() and not (out / "report.html").exists()
    assert main(["demo", str(out), "--quick", "--seeds=2"]) == 0
    return out


def test_it_leaves_a_page_and_the_best_weights(out: Path) -> None:
    text = (out / "report.html").read_text()
    for what in (*CONTESTANTS, "raw tracklets", "level 3: across videos", "Means and standard deviations of 2 worlds"):
        assert what in text
    story = tell(out / "seed-0", TINY, 0)
    best = max(CONTESTANTS[2:], key=lambda name: scores(story.found[name]).mean_average_precision)
    own, chosen = (load(path / "teacher.safetensors") for path in (out / "seed-0" / best.split()[0],) * 2)
    saved = load(out / "best.safetensors")
    assert saved.backbone.name == chosen.backbone.name
    kernel = np.asarray(saved.variables["params"]["conv1"]["kernel"])
    np.testing.assert_array_equal(kernel, own.variables["params"]["conv1"]["kernel"])


def test_labels_are_those_of_the_run_and_held_against_the_truth(out: Path) -> None:
    records = Records(out / "seed-0" / "world")
    made_for = records.card.fingerprint
    labels, truth = (read_labelling(out / "seed-0" / name, made_for) for name in ("labels.npz", "world/truth.npz"))
    agreements = tell(out / "seed-0", TINY, 0).people.agreements
    assert agreements[0] == agreement(np.array(records.index["tracklet"]), truth)
    assert agreements[3] == agreement(labels, truth)
    assert len(agreements) == 4


def test_every_seed_is_a_world_of_its_own(out: Path) -> None:
    prints = {
        Records(out / f"seed-{seed}" / "world", split).card.fingerprint
        for seed in (0, 1)
        for split in ("train", "query")
    }
    assert len(prints) == 4


def test_tables_are_means_over_stories(out: Path) -> None:
    stories = [tell(out / f"seed-{seed}", TINY, seed) for seed in (0, 1)]
    rows = score_rows(stories)
    assert [row[0] for row in rows] == CONTESTANTS
    values = [100 * scores(story.found["identity level"]).mean_average_precision for story in stories]
    assert rows[-1][1] == f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
    assert [row[0][:7] for row in agreement_rows(stories)] == ["raw tra", "level 1", "level 2", "level 3"]
    assert spread([0.5]) == "0.500" and spread([1.0, 2.0], 1) == "1.5 ± 0.7"


def test_histograms_see_colours_and_heights_but_not_sides(tmp_path: Path) -> None:
    drawn = build(World(identities=2, videos=1, test_identities=3, distractors=0, height=32, width=16, quality=100))
    write_dataset(tmp_path / "world", {"query": drawn["query"]}, Writing(workers=1))
    records = Records(tmp_path / "world", "query")

    class Mirrored:
        def __len__(self) -> int:
            return len(records)

        def pixels_into(self, out: np.ndarray, number: int) -> None:
            records.pixels_into(out, number)
            out[:] = out[:, ::-1]

    found = histograms(records, (32, 16))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(histograms(Mirrored(), (32, 16)), found)  # type: ignore[arg-type]
    assert (found @ found.T - np.eye(len(found)) < 0.999).all()


@pytest.mark.parametrize("plan", [DEFAULT, QUICK, FULL], ids=["default", "quick", "full"])
def test_every_plan_can_be_run(plan: Plan) -> None:
    """As far as can be told without running it; budgets and beginnings of the levels are one setting."""
    check_world(plan.world)
    check(plan.training, 1)
    check_sizes(plan.training, model_of(plan.training))
    check_settings(plan.denoising)
    assert plan.training.image_size == (plan.world.height, plan.world.width)


def test_mistakes_are_answered_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in [(["--seeds=0"], "--seeds 0"), (["--quick", "--full"], "choose one of the two")]:
        assert main(["demo", str(tmp_path / "out"), *options]) == 1
        assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
