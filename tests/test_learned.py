"""Whom a supervised fine-tuning learns from, and what it refuses."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cion_jax.config import Bnneck, ClusterContrast, Mgn, Supervised
from cion_jax.data.example import ImageRecord
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.recipes import PAPER, published
from cion_jax.run.learned import divide
from finetuned import COMMANDS, TOY, cion, stand_in
from tiny_pretrain import nobody

ASKED = Bnneck(batch=8, instances=2, validation=0.0)


@pytest.fixture(scope="module")
def records(dataset: Path) -> Records:
    """14 identities of 13 images or fewer, under two or three cameras; every seventh image shows nobody."""
    return Records(dataset)


def test_all_are_learnt_from_and_those_without_identity_are_not(records: Records) -> None:
    identity = np.array(records.index["identity"])
    learned = divide(ASKED, records)
    assert ((learned.labels < 0) == (identity < 0)).all() and learned.aside is None
    for label in range(learned.classes):
        (known,) = np.unique(identity[learned.labels == label])
        assert (learned.labels[identity == known] == label).all()


def test_those_set_aside_are_not_learnt_from_and_can_be_ranked(records: Records) -> None:
    learned = divide(replace(ASKED, validation=0.5), records)
    assert learned.aside is not None and learned.classes == 8
    scored = learned.aside.labels
    identity = np.array(records.index["identity"])
    assert set(scored["identity"]).isdisjoint(identity[learned.labels >= 0])
    assert len(scored) == len(learned.aside.images) == np.isin(identity, scored["identity"]).sum()
    cameras = scored["camera"]
    assert all(len(set(cameras[scored["identity"] == known])) > 1 for known in set(scored["identity"]))
    other = divide(replace(ASKED, validation=0.5, seed=1), records).aside
    assert other is not None and not np.array_equal(other.labels, scored)
    fewer = divide(replace(ASKED, validation=0.5, identities_share=0.6), records)
    assert fewer.aside is not None
    np.testing.assert_array_equal(fewer.aside.labels, scored)  # scores stay comparable as shares change
    assert fewer.classes == 4


def test_shares_of_images_keep_everybody(records: Records) -> None:
    everybody = divide(ASKED, records)
    images = int((everybody.labels >= 0).sum())
    for share, least in ((0.5, images // 2), (0.01, everybody.classes)):
        learned = divide(replace(ASKED, images_share=share, batch=2), records) if share == 0.5 else None
        if learned is not None:
            assert learned.classes == everybody.classes and (learned.labels >= 0).sum() == least
    with pytest.raises(UserError, match="each identity to learn from has one image"):
        divide(replace(ASKED, images_share=0.01), records)


def test_identities_by_name(records: Records, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("3\n5\n8\n1\n")
    learned = divide(replace(ASKED, identities_file=tmp_path / "ids"), records)
    assert set(np.array(records.index["identity"])[learned.labels >= 0]) == {1, 3, 5, 8}
    (tmp_path / "ids").write_text("three")
    with pytest.raises(UserError, match=r"ids: 'three' is no identity; write the number of one identity in each line"):
        divide(replace(ASKED, identities_file=tmp_path / "ids"), records)


def test_images_by_name(records: Records, tmp_path: Path) -> None:
    """As in the published lists, and by paths that lead farther up or less far."""
    file = tmp_path / "used_ims.txt"
    file.write_text("2.jpg; 0; 0 \nblocks/3.jpg\n\n/mnt/blocks/31.jpg; 7\n33.jpg\n6.jpg\n")
    learned = divide(replace(ASKED, batch=4, images_file=file), records)
    assert [*np.flatnonzero(learned.labels >= 0)] == [2, 3, 31, 33]  # the last in the list shows nobody
    aside = divide(replace(ASKED, batch=4, validation=0.5), records).aside
    file.write_text("\n".join(f"{number}.jpg" for number in range(0, 200, 2)))
    halved = divide(replace(ASKED, batch=4, images_file=file, validation=0.5), records)
    assert (np.flatnonzero(halved.labels >= 0) % 2 == 0).all()
    assert aside is not None and halved.aside is not None
    np.testing.assert_array_equal(halved.aside.labels, aside.labels)  # all images of them, listed or not


@pytest.mark.parametrize(
    "line, message",
    [
        ("300.jpg", r"ims:2: '300.jpg' is the name of 0 images of split train of .*; names .* like blocks/0.jpg"),
        ("ocks/3.jpg", "'ocks/3.jpg' is the name of 0 images"),
        ("same.jpg", r"'same.jpg' is the name of 2 images of split train of .*; write more of its path"),
    ],
)
def test_names_that_are_not_those_of_one_image(
    line: str, message: str, records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ims").write_text(f"a/same.jpg\n{line}\n")
    read = Records.__getitem__

    def renamed(these: Records, number: int) -> ImageRecord:
        names = {8: "a/same.jpg", 9: "b/same.jpg"}
        record = read(these, number)
        return replace(record, source=names.get(number, record.source))

    monkeypatch.setattr(Records, "__getitem__", renamed)
    with pytest.raises(UserError, match=message):
        divide(replace(ASKED, images_file=tmp_path / "ims"), records)


REFUSED: dict[str, tuple[str, str]] = {
    "too few people": ("bnneck --batch 64 --instances 4", "10 identities .* needs 16; choose --batch 40 at the most"),
    "nobody aside": ("bnneck --validation 0.05", "set aside, and 2 are needed to rank them; give --validation 0"),
    "no share": ("bnneck --identities-share 0", "identities_share is 0; give a share above 0 and at most 1"),
    "no batch": ("bnneck --batch 15", "a batch of 15 images does not split .*; 12 and 16 would"),
    "a vit": ("mgn vit_tiny", "MGN needs a ResNet, but vit_tiny is a ViT; take resnet50_ibn"),
    "low images": ("mgn --image-size 32 16 --size 32 16", "MGN cannot cut images of 32x16 in 3; take higher ones"),
    "none near": ("dbscan --min-samples 150", "DBSCAN with eps 0.7 makes no cluster of 200 images; raise --eps"),
    "few clusters": ("dbscan --batch 400 --instances 2", "clusters of 200 images, and a batch .*; choose --batch"),
    "no eps": ("dbscan --eps 1.5", "eps 1.5: must be above 0 and at most 1"),
    "nearly a name": ("bnneck toi", "no backbone is called 'toi'; did you mean toy"),
    "missing weights": ("bnneck gone.safetensors", "gone.safetensors: not there"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_users_mistake_is_one_line_with_the_remedy(
    case: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch)
    options, message = REFUSED[case]
    name, *rest = options.split()
    weights = rest.pop(0) if rest and not rest[0].startswith("--") else TOY
    assert cion(COMMANDS[name], *rest, weights, dataset, tmp_path / "out") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cion: ")]
    assert re.search(message, line), line
    assert not list(tmp_path.glob("out/*.safetensors"))


def test_labels_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch)
    assert cion(COMMANDS["bnneck"], TOY, nobody(tmp_path), tmp_path / "out") == 1
    assert (
        "nobody in split train has an identity to learn from; give a labelling with --labels" in capsys.readouterr().err
    )


def test_published_settings() -> None:
    def row(settings: Supervised | ClusterContrast, name: str, data_set: str) -> tuple[float, ...]:
        found = published(settings, name, data_set)
        assert isinstance(found, Bnneck) and found.validation == 0 and found.backbone == name
        rate = found.optimization.learning_rate * found.batch / 64
        return found.batch, round(rate, 9), found.optimization.warmup

    assert row(Bnneck(), "ghostnet_0_5", "market1501") == (32, 0.0002, 40)
    assert row(Bnneck(), "ghostnet_0_5", "msmt17") == (32, 0.0002, 20)
    assert row(Bnneck(), "resnet50_ibn", "market1501") == (512, 0.0032, 20)
    assert row(Bnneck(), "convnext_base", "market1501") == (120, 0.0008, 20)
    assert row(Bnneck(), "swin_base", "msmt17") == (64, 0.0002, 20)
    assert row(Bnneck(), "swin_base", "market1501") == (64, 0.0004, 20)
    assert all(row(Bnneck(), name, "msmt17")[0] in (32, 64, 128, 256, 384, 512) for name in PAPER)
    adapting = [published(ClusterContrast(), "resnet50", name) for name in ("market1501", "msmt17")]
    assert [each.clustering.eps for each in adapting if isinstance(each, ClusterContrast)] == [0.6, 0.7]
    assert {each.pixel_scale for each in adapting} == {"augmentation"}
    assert published(Mgn(), "resnet50", "msmt17").epochs == 60
