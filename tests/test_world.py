"""The drawn world: its images are pure, its labels honest, and its tracker errs as often as it was set to."""

import dataclasses
import pickle

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from cion_jax.config import World
from cion_jax.data.labels import LABELS
from cion_jax.errors import UserError
from tfrecords_tools.world import WorldSource, build, truth
from tfrecords_tools.world.cameras import Camera, photograph
from tfrecords_tools.world.scenes import WIDTH, scene
from tfrecords_tools.world.splits import cast
from tfrecords_tools.world.tables import row
from tfrecords_tools.world.walks import MARGIN, PLACES, Fault

SMALL = World(identities=6, videos=4, cameras=3, test_identities=3, distractors=6, height=64, width=32)
MEDIUM = World(identities=400, videos=60, cameras=6, test_identities=20, distractors=101)
TROUBLED = dataclasses.replace(MEDIUM, switches=0.4, fragments=0.5)
SPLITS = ("train", "query", "gallery")


@pytest.fixture(scope="module")
def small() -> dict[str, WorldSource]:
    return build(SMALL)


@pytest.fixture(scope="module")
def medium() -> dict[str, WorldSource]:
    return build(MEDIUM)


def jpegs(source: WorldSource) -> list[bytes]:
    return [data for data, _ in source.encoded()]


def pixels(source: WorldSource) -> np.ndarray:
    return np.stack([simplejpeg.decode_jpeg(data) for data in jpegs(source)]).astype(float)


def with_shots(source: WorldSource, **columns: int) -> WorldSource:
    shots = source.shots.copy()
    for name, value in columns.items():
        shots[name] = value
    return dataclasses.replace(source, shots=shots)


def people_of(labels: np.ndarray, people: np.ndarray) -> list[set[int]]:
    """Whom each tracklet shows."""
    return [set(people[labels["tracklet"] == number]) - {-1} for number in np.unique(labels["tracklet"])]


def differing_fields(people: np.ndarray) -> np.ndarray:
    """In how many attributes each two people of a table differ; a person differs from itself in all."""
    differ = np.zeros((len(people), len(people)), int)
    for name in people.dtype.names:
        column = people[name].reshape(len(people), -1)
        differ += (column[:, None] != column[None]).any(axis=-1)
    np.fill_diagonal(differ, len(people.dtype.names))
    return differ


@pytest.mark.parametrize("split", SPLITS)
def test_an_image_is_the_same_alone_in_a_part_and_in_the_whole(small: dict[str, WorldSource], split: str) -> None:
    source = small[split]
    whole = list(source.encoded())
    for index in (0, 5, len(source) - 1):
        assert list(source.part(index, index + 1).encoded()) == [whole[index]]
    assert list(source.part(2, 9).part(1, 4).encoded()) == whole[3:6]


def test_equal_settings_give_equal_bytes(small: dict[str, WorldSource]) -> None:
    before = jpegs(small["gallery"])
    scene.cache_clear()
    cast.cache_clear()
    again = build(SMALL)
    assert jpegs(again["gallery"].part(3, 20)) == before[3:20]
    for split in SPLITS:
        np.testing.assert_array_equal(again[split].labels, small[split].labels)


def test_another_seed_gives_other_people_places_and_bytes(small: dict[str, WorldSource]) -> None:
    other = build(dataclasses.replace(SMALL, seed=1))
    assert not set(jpegs(other["gallery"])) & set(jpegs(small["gallery"]))
    for split in SPLITS:
        both = np.concatenate([cast(SMALL, split).people, cast(other[split].world, split).people])
        here = len(both) // 2
        assert differing_fields(both)[:here, here:].min() > 2


def test_fingerprints_are_equal_only_for_the_same_images(small: dict[str, WorldSource]) -> None:
    train = small["train"]
    assert train.part(0, 9).part(2, 5).fingerprint() == build(SMALL)["train"].part(2, 5).fingerprint()
    others = [train, train.part(2, 5), train.part(3, 6), train.part(2, 6), small["query"].part(2, 5)]
    others.append(build(dataclasses.replace(SMALL, quality=91))["train"].part(2, 5))
    assert len({source.fingerprint() for source in others}) == len(others)


def test_a_part_is_cheap_to_send(medium: dict[str, WorldSource]) -> None:
    part = medium["train"].part(1000, 2000)
    assert len(part) == 1000
    assert len(pickle.dumps(part)) < 150 * len(part)
    revived = pickle.loads(pickle.dumps(part.part(0, 2)))
    assert jpegs(revived) == jpegs(part.part(0, 2))


@pytest.mark.parametrize(("height", "width"), [(64, 32), (128, 64), (256, 128), (90, 70)])
def test_images_have_the_size_asked_for_and_a_traceable_name(height: int, width: int) -> None:
    source = build(dataclasses.replace(SMALL, height=height, width=width))["train"]
    source = source.part(len(source) - 3, len(source))
    for (data, name), label in zip(source.encoded(), source.labels, strict=True):
        assert simplejpeg.decode_jpeg(data).shape == (height, width, 3)
        assert name == f"video{label['video']:03d}/tracklet{label['tracklet']:04d}/{label['frame']:06d}.jpg"


def test_people_are_seen_and_empty_boxes_are_empty(small: dict[str, WorldSource]) -> None:
    source = small["train"]
    good = np.flatnonzero((truth(source) >= 0) & (source.shots["fault"] == Fault.NONE))[:40]
    for index in good.tolist():
        one = source.part(index, index + 1)
        changed = np.abs(pixels(one) - pixels(with_shots(one, person=-1))).max(axis=-1) > 25
        assert 0.12 < changed.mean() < 0.8
    empty = source.part(0, 1)
    np.testing.assert_array_equal(
        pixels(with_shots(empty, person=-1, other=0)), pixels(with_shots(empty, person=-1, other=1, facing=2, phase=1))
    )


def test_every_fault_changes_the_picture(small: dict[str, WorldSource]) -> None:
    source = small["train"].part(3, 4)
    pictures = [pixels(with_shots(source, person=0, other=1, amount=1, fault=fault)) for fault in Fault]
    for number, picture in enumerate(pictures):
        for other in pictures[:number]:
            assert np.abs(picture - other).mean() > 4


def test_neighbours_in_a_tracklet_look_more_alike_than_its_distant_images(small: dict[str, WorldSource]) -> None:
    clean = with_shots(small["train"], fault=Fault.NONE).part(0, 200)
    images = pixels(clean)
    people = truth(clean)
    tracklet = clean.labels["tracklet"]

    def usual_difference(apart: int) -> float:
        same = (tracklet[apart:] == tracklet[:-apart]) & (people[apart:] == people[:-apart])
        return float(np.median(np.abs(images[apart:] - images[:-apart]).mean(axis=(1, 2, 3))[same]))

    assert usual_difference(1) < 0.8 * usual_difference(3)


def test_each_camera_records_a_colour_in_its_own_way() -> None:
    paint = Image.new("RGB", (32, 64), (190, 110, 70))
    cameras = [row(Camera, cast(MEDIUM, "train").cameras, number) for number in range(MEDIUM.cameras)]
    colours = [photograph(camera, paint, 1.0, np.random.default_rng(0)).mean(axis=(0, 1)) for camera in cameras]
    assert np.std(colours, axis=0).min() > 5


def test_training_labels_keep_the_identities_to_themselves(medium: dict[str, WorldSource]) -> None:
    train = medium["train"]
    assert train.labels.dtype == LABELS
    assert (train.labels["identity"] == -1).all()
    people = truth(train)
    assert people.dtype == np.int64 and len(people) == len(train)
    np.testing.assert_array_equal(people, truth(MEDIUM))
    np.testing.assert_array_equal(people[30:70], truth(train.part(30, 70)))


def test_everybody_is_met_and_most_under_several_cameras() -> None:
    train = build(dataclasses.replace(MEDIUM, background=0.0))["train"]
    people = truth(train)
    cameras = [len(set(train.labels["camera"][people == person])) for person in range(MEDIUM.identities)]
    videos = [len(set(train.labels["video"][people == person])) for person in range(MEDIUM.identities)]
    assert min(videos) >= 1
    assert np.mean(np.array(cameras) >= 2) > 0.9
    assert np.mean(videos) == pytest.approx(MEDIUM.appearances, rel=0.08)


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_in_order_and_numbered_from_zero(medium: dict[str, WorldSource], split: str) -> None:
    labels = medium[split].labels
    for keys in (("frame", "tracklet", "video"), ("frame", "tracklet")):
        np.testing.assert_array_equal(np.lexsort([labels[key] for key in keys]), np.arange(len(labels)))
    np.testing.assert_array_equal(np.unique(labels["tracklet"]), np.arange(labels["tracklet"].max() + 1))
    assert (labels["frame"] >= 0).all() and labels["camera"].max() == MEDIUM.cameras - 1
    once = np.unique(labels[["tracklet", "frame"]])
    assert len(once) == len(labels)


@pytest.mark.parametrize("split", SPLITS)
def test_a_tracklet_has_one_video_and_a_video_one_camera(medium: dict[str, WorldSource], split: str) -> None:
    labels = medium[split].labels
    for inner, outer in (("tracklet", "video"), ("video", "camera")):
        assert len(np.unique(labels[[inner, outer]])) == len(np.unique(labels[inner]))


@pytest.mark.parametrize("split", SPLITS)
def test_nobody_is_in_two_boxes_of_one_frame(split: str) -> None:
    source = build(TROUBLED)[split]
    shown = truth(source) >= 0
    keys = np.stack([source.labels["video"], source.labels["frame"], truth(source)])[:, shown]
    assert np.unique(keys, axis=1).shape == keys.shape


def test_people_of_one_video_meet_in_its_frames(medium: dict[str, WorldSource]) -> None:
    labels = medium["train"].labels
    _, together = np.unique(labels[["video", "frame"]], return_counts=True)
    assert 2 < together.mean() < 5


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_switches_come_as_often_as_set(share: float) -> None:
    train = build(dataclasses.replace(MEDIUM, switches=share, background=0.0))["train"]
    mixed = [len(people) for people in people_of(train.labels, truth(train))]
    assert set(mixed) <= {1, 2}
    assert np.mean(np.array(mixed) == 2) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_fragments_come_as_often_as_set(share: float) -> None:
    train = build(dataclasses.replace(MEDIUM, switches=0.0, background=0.0, fragments=share))["train"]
    labels = train.labels
    walks = len(np.unique(np.stack([labels["video"], truth(train)]), axis=1).T)
    tracklets = labels["tracklet"].max() + 1
    assert tracklets / walks == pytest.approx(1 + share, abs=0.01)
    assert len(labels) / tracklets == pytest.approx(MEDIUM.length, rel=0.05)


def test_bad_and_empty_boxes_come_as_often_as_set() -> None:
    train = build(dataclasses.replace(MEDIUM, bad_boxes=0.25, background=0.1))["train"]
    assert np.mean(truth(train) == -1) == pytest.approx(0.1, abs=0.015)
    assert np.mean(train.shots["fault"] != Fault.NONE) == pytest.approx(0.25, abs=0.02)
    assert set(train.shots["fault"]) == {Fault.NONE, Fault.DRIFT, Fault.CUT, Fault.WALKER, Fault.POLE, Fault.CAR}


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_look_alikes_differ_in_one_or_two_small_things(share: float) -> None:
    closest = differing_fields(cast(dataclasses.replace(MEDIUM, look_alikes=share), "train").people).min(axis=1)
    alike = closest <= 2
    assert alike.mean() == pytest.approx(share, abs=0.001)
    assert closest.min() >= 1
    assert (closest[~alike] > 4).all()


def test_test_people_are_not_in_training() -> None:
    even = dataclasses.replace(MEDIUM, test_identities=MEDIUM.identities)
    both = np.concatenate([cast(even, "train").people, cast(even, "gallery").people])
    across = differing_fields(both)[: even.identities, even.identities :]
    assert across.min() > 2


def test_every_query_can_be_answered_from_another_camera(medium: dict[str, WorldSource]) -> None:
    query, gallery = medium["query"].labels, medium["gallery"].labels
    assert set(query["identity"]) == set(range(1, MEDIUM.test_identities + 1))
    assert len(np.unique(query[["identity", "camera"]])) == len(query)
    assert (medium["query"].shots["fault"] == Fault.NONE).all()
    for asked in query:
        cameras = gallery["camera"][gallery["identity"] == asked["identity"]]
        assert (cameras != asked["camera"]).any() and (cameras == asked["camera"]).sum() >= 2


def test_the_gallery_holds_junk_and_as_many_distractors_as_set(medium: dict[str, WorldSource]) -> None:
    gallery = medium["gallery"]
    people = truth(medium["gallery"])
    identity = gallery.labels["identity"]
    assert (identity == 0).sum() == MEDIUM.distractors
    assert 0.02 < np.mean(identity == -1) < 0.2
    assert (people[identity == -1] < MEDIUM.test_identities).all()
    np.testing.assert_array_equal(people[identity > 0] + 1, identity[identity > 0])
    strangers = people[identity == 0]
    assert ((strangers == -1) | (strangers >= MEDIUM.test_identities)).all() and (strangers == -1).any()


def test_tiny_worlds_can_be_built() -> None:
    tiny = World(identities=4, videos=2, cameras=2, test_identities=2, distractors=0)
    assert all(len(source) for source in build(tiny).values())
    alone = build(World(identities=1, videos=1, cameras=1, test_identities=0, distractors=0))
    assert [bool(len(alone[split])) for split in SPLITS] == [True, False, False]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cameras", 1),
        ("identities", 0),
        ("switches", 1.5),
        ("background", -0.1),
        ("background", 0.95),
        ("quality", 101),
    ],
)
def test_impossible_settings_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"world\.{name}.*{value}") as refusal:
        build(dataclasses.replace(World(), **{name: value}))
    assert "\n" not in str(refusal.value)


def test_a_carried_camera_comes_through_places_and_a_hanging_one_stays(medium: dict[str, WorldSource]) -> None:
    """In training places and light change behind a person; where people are sought, and without motion, they do not."""
    train = medium["train"]
    shots = train.shots
    tracklet = train.labels["tracklet"]
    places = [len(set(shots["place"][tracklet == number])) for number in np.unique(tracklet)]
    assert np.mean(np.array(places) > 1) > 0.5 and set(shots["place"]) == set(range(PLACES))
    still = build(dataclasses.replace(MEDIUM, motion=0.0))["train"]
    for hanging in (still, medium["query"], medium["gallery"]):
        assert not hanging.shots["place"].any()
    for source in (train, still):
        x = source.shots["x"][truth(source) >= 0]
        assert x.min() >= MARGIN and x.max() <= WIDTH - MARGIN


def test_places_of_one_camera_are_as_different_as_those_of_two(small: dict[str, WorldSource]) -> None:
    source = small["train"].part(0, 1)
    pictures = pixels(with_shots(source, person=-1, place=0)), pixels(with_shots(source, person=-1, place=1))
    assert np.abs(pictures[0] - pictures[1]).mean() > 10
