"""What importers refuse, in one line that names it."""

import os
import struct
from pathlib import Path

import pytest

from cion_jax.data.images import HEADER_BYTES, MAX_PIXELS
from cion_jax.errors import UserError
from layouts import as_jsonl, image_bytes, plant, png_header, refusal, write_annotations
from tfrecords_tools import files
from tfrecords_tools.importers import IMPORTERS


def jpeg_header(width: int, height: int) -> bytes:
    """A small JPEG whose frame header claims another size."""
    data = bytearray(image_bytes("small.jpg"))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


# Refusals


def listed_in(root: Path, path: str) -> tuple[str, Path]:
    """A manifest that lists one image beside a good one."""
    plant(root, "good.jpg")
    (root / "table.jsonl").write_text(as_jsonl([{"path": "good.jpg"}, {"path": path}]))
    return "manifest", root / "table.jsonl"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../outside.jpg", "must be relative and lead down"),
        ("folder/../../outside.jpg", "must be relative and lead down"),
        ("{outside}/outside.jpg", "must be relative and lead down"),
        ("missing.jpg", "No such file"),
        ("missing/a.jpg", "No such file"),
        ("folder", "not a file"),
        ("", "must be relative and lead down"),
        ("pipe.jpg", "not a file"),
        ("null\0.jpg", "null"),
        ("x" * 300, "too long"),
        ("text.jpg", "neither JPEG nor PNG"),
        ("empty.jpg", "empty"),
        ("huge.jpg", "claims 40000 x 40000"),
        ("huge.png", "claims 40000 x 40000"),
        ("long.jpg", "bytes; at most"),
        ("link.jpg", "a link leads out"),
        ("chain.jpg", "a link leads out"),
        ("linked/outside.jpg", "a link leads out"),
        ("linked/deep/outside.jpg", "a link leads out"),
        ("broken.jpg", "No such file"),
        ("loop.jpg", "Too many levels of symbolic links"),
    ],
)
def test_images_that_are_refused(tmp_path: Path, path: str, reason: str) -> None:
    outside = plant(tmp_path / "outside", "outside.jpg", "deep/outside.jpg")
    root = plant(tmp_path / "root", "folder/1.jpg")
    os.mkfifo(root / "pipe.jpg")
    (root / "text.jpg").write_text("<html>")
    (root / "empty.jpg").touch()
    (root / "huge.jpg").write_bytes(jpeg_header(40_000, 40_000))
    (root / "huge.png").write_bytes(png_header(40_000, 40_000))
    with (root / "long.jpg").open("wb") as file:
        file.truncate(4 * MAX_PIXELS + 1)
    (root / "link.jpg").symlink_to(outside / "outside.jpg")
    (root / "chain.jpg").symlink_to("link.jpg")
    (root / "linked").symlink_to(outside)
    (root / "broken.jpg").symlink_to("nothing.jpg")
    (root / "loop.jpg").symlink_to("loop.jpg")
    path = path.format(outside=outside)
    kind, source = listed_in(root, path)
    message = refusal(kind, source)
    assert repr(path or ".") in message and reason in message and "more)" not in message


def test_links_that_stay_inside_and_long_metadata_are_accepted(tmp_path: Path) -> None:
    root = plant(tmp_path / "root", "real/t/1.jpg")
    (root / "real" / "t" / "2.jpg").symlink_to(root / "real" / "t" / "1.jpg")
    (root / "linked").symlink_to("real")
    metadata = b"".join(b"\xff\xe1\xff\xff" + bytes(0xFFFD) for _ in range(3))
    data = image_bytes("1.jpg")
    (root / "real" / "t" / "3.jpg").write_bytes(data[:2] + metadata + data[2:])
    assert len(metadata) > HEADER_BYTES
    (tmp_path / "alias").symlink_to(root)
    for source in (root, tmp_path / "alias"):
        assert len(IMPORTERS["folders"](source)["train"]) == 6


@pytest.mark.parametrize("link", ["v", "v/t", "v/t/1.jpg"])
def test_listed_links_that_lead_out_are_refused(tmp_path: Path, link: str) -> None:
    plant(tmp_path / "outside", "v/t/1.jpg")
    plant(tmp_path / "root", "w/t/1.jpg")
    (tmp_path / "root" / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "root" / link).symlink_to(tmp_path / "outside" / link)
    message = refusal("folders", tmp_path / "root")
    assert "'v/t/1.jpg'" in message and "a link leads out" in message


def test_a_root_is_not_confused_with_its_neighbour(tmp_path: Path) -> None:
    plant(tmp_path, "root-2/1.jpg", "root/v/t/1.jpg")
    (tmp_path / "root" / "v" / "t" / "2.jpg").symlink_to(tmp_path / "root-2" / "1.jpg")
    assert "'v/t/2.jpg'" in refusal("folders", tmp_path / "root")


def test_the_first_of_many_refusals_is_named(tmp_path: Path) -> None:
    plant(tmp_path, *(f"v/t/{number:04d}.jpg" for number in range(600)))
    for number in (599, 300, 17):
        (tmp_path / f"v/t/{number:04d}.jpg").write_text("line\nline")
    message = refusal("folders", tmp_path)
    assert "'v/t/0017.jpg'" in message and "(and 2 more)" in message


def test_checking_reads_only_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "v/t/1.jpg")
    with (tmp_path / "v/t/1.jpg").open("ab") as file:
        file.truncate(HEADER_BYTES * 3)
    seen = []
    monkeypatch.setattr(files, "header", lambda data: seen.append(len(data)) or (4, 3))
    IMPORTERS["folders"](tmp_path)
    assert seen == [HEADER_BYTES]


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    source = IMPORTERS["folders"](plant(tmp_path, "v/t/1.jpg"))["train"]
    (tmp_path / "v/t/1.jpg").unlink()
    with pytest.raises(UserError, match=r"^'v/t/1\.jpg' in .*No such file[^\n]*$"):
        list(source.encoded())


def test_names_that_are_not_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "v" / "t").mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/v/t/\xff.jpg")).touch()
    assert r"\udcff.jpg" in refusal("folders", tmp_path)


@pytest.mark.parametrize("kind", ["folders", "lupnl", "mot", "market1501", "cuhk03np", "msmt17", "cional", "manifest"])
def test_empty_and_missing_folders_are_refused(tmp_path: Path, kind: str) -> None:
    assert str(tmp_path) in refusal(kind, tmp_path)
    assert str(tmp_path / "missing") in refusal(kind, tmp_path / "missing")


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (tmp_path / folder).mkdir()
    expected = f"no images found under {tmp_path}; expected "
    assert f"{expected}video/tracklet/image.jpg" in refusal("folders", tmp_path)
    assert f"{expected}country/city/video/" in refusal("lupnl", tmp_path)
    assert f"{expected}bounding_box_train/0002_c1s1_000451_03.jpg" in refusal("market1501", tmp_path)
    (tmp_path / "list_train.txt").touch()
    (tmp_path / "list_val.txt").touch()
    (tmp_path / "train").mkdir()
    assert f"{expected}lines like" in refusal("msmt17", tmp_path)
    (tmp_path / "ids.json").write_text("[]")
    assert f"{expected}the images that" in refusal("cional", tmp_path)
    (tmp_path / "table.csv").write_text("path\n")
    assert f"no images found in {tmp_path / 'table.csv'}" in refusal("manifest", tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("market1501", "bounding_box_train/0002_c1s1_000451.jpg"),
        ("market1501", "bounding_box_train/0002_c1s1_000451_03.jpg.jpg"),
        ("cuhk03np", "bounding_box_train/0001_1_1.png"),
        ("lupnl", "DE/Bonn/a/00001_00002.jpg"),
        ("lupnl", "DE/Bonn/a/1_12345678901_0.jpg"),
        ("msmt17", "train/0000/0000_01_0303morning_0008_0.jpg"),
    ],
)
def test_other_names_are_refused(tmp_path: Path, kind: str, path: str) -> None:
    plant(tmp_path, path)
    for name in ("train", "val"):
        (tmp_path / f"list_{name}.txt").write_text(f"{path.removeprefix('train/')} 0\n")
    message = refusal(kind, tmp_path)
    assert repr(path) in message and "not a name like" in message


@pytest.mark.parametrize("line", ["0000/a.jpg", "0000/a.jpg x", "0000/a.jpg -1", "0000/a.jpg 12345678901"])
def test_msmt17_refuses_lines(tmp_path: Path, line: str) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "list_train.txt").write_text(f"\n{line}\n")
    assert f"list_train.txt:2: {line!r}" in refusal("msmt17", tmp_path)


def test_msmt17_refuses_a_mixture_of_its_versions(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "mask_test_v2").mkdir()
    assert "holds the folders of both versions" in refusal("msmt17", tmp_path)
    (tmp_path / "train").rmdir()
    (tmp_path / "mask_test_v2").rmdir()
    assert "holds neither train and test nor mask_train_v2" in refusal("msmt17", tmp_path)


def test_an_image_listed_twice_is_refused(tmp_path: Path) -> None:
    assert "'good.jpg'" in refusal(*listed_in(tmp_path, "./good.jpg"))
    write_annotations(tmp_path, ("good.jpg", 1), ("good.jpg", 2), ("good.jpg", 3))
    message = refusal("cional", tmp_path)
    assert "'good.jpg'" in message and "listed twice (and 1 more)" in message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "usable JSON"),
        ("\udcff", "usable JSON"),
        ("[" * 100_000, "usable JSON"),
        ('[{"file_path": "good.jpg", "id": ' + "9" * 5000 + "}]", "usable JSON"),
        ('{"file_path": "good.jpg", "id": 1}', "holds no list"),
        ('[{"file_path": "good.jpg", "id": 1}, 7]', "entry 2 "),
        ('[{"file_path": "good.jpg"}]', "entry 1 "),
        ('[{"id": 1}]', "entry 1 "),
        ('[{"file_path": "good.jpg", "id": true}]', "entry 1 "),
        ('[{"file_path": "good.jpg", "id": 1.5}]', "entry 1 "),
        ('[{"file_path": ["good.jpg"], "id": 1}]', "entry 1 "),
        ('[{"file_path": "\\ud800.jpg", "id": 1}]', r"\ud800.jpg"),
    ],
)
def test_cional_refuses_other_json(tmp_path: Path, text: str, named: str) -> None:
    plant(tmp_path, "good.jpg")
    (tmp_path / "ids.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    message = refusal("cional", tmp_path)
    assert named in message and (r"\ud800" in named or "ids.json" in message)


def test_cional_needs_one_json_file(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.jpg")
    assert "holds 0 *.json files" in refusal("cional", tmp_path)
    write_annotations(tmp_path, ("a/1.jpg", 1), name="a.json")
    write_annotations(tmp_path, ("a/1.jpg", 1), name="b.json")
    assert "holds 2 *.json files" in refusal("cional", tmp_path) and "--annotations" in refusal("cional", tmp_path)
    assert "c.json" in refusal("cional", tmp_path, annotations=tmp_path / "c.json")


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("a.csv", "path,colour\ngood.jpg,red\n", "a.csv:2: unknown column 'colour'; the known ones are path, video,"),
        ("a.csv", "video\nv1\n", "a.csv:2: has the columns video; all rows need path"),
        ("a.csv", "path,path\na.jpg,b.jpg\n", "a.csv:1: a column stands twice"),
        ("a.csv", "path,video\ngood.jpg,1\ngood.jpg\n", "a.csv:3: 1 values for 2 columns"),
        ("a.csv", 'path\n"good.jpg', "a.csv:2: not usable CSV"),
        ("a.csv", "path\n" + "x" * 200_000, "a.csv:2: not usable CSV"),
        ("a.csv", "path\n\udcff.jpg\n", "a.csv: is not UTF-8"),
        ("a.csv", "path,frame\ngood.jpg,1.5\n", "a.csv:2: frame '1.5' is not a whole number"),
        ("a.csv", "path,camera\ngood.jpg,\n", "a.csv:2: camera '' is not a whole number"),
        ("a.csv", "path,identity\ngood.jpg,4294967296\n", "a.csv:2: identity '4294967296' is not a whole number"),
        ("a.csv", "path,identity\ngood.jpg,-2\n", "a.csv:2: identity '-2' is not a whole number"),
        ("a.csv", "path,split\ngood.jpg,../x\n", "a.csv:2: split '../x'"),
        ("a.csv", "path,split\ngood.jpg,Train\n", "a.csv:2: split 'Train'"),
        ("a.jsonl", '{"path": "good.jpg"}\n{', "a.jsonl:2: not usable JSON"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: not usable JSON"),
        ("a.jsonl", '["good.jpg"]', "a.jsonl:1: not an object"),
        ("a.jsonl", "{}", "a.jsonl:1: has the columns"),
        ("a.jsonl", '{"path": "good.jpg"}\n{"path": "b.jpg", "video": 1}', "a.jsonl:2: has the columns path, video"),
        ("a.jsonl", '{"path": "good.jpg", "a\\nb": 1}', r"a.jsonl:1: unknown column 'a\nb'"),
        ("a.jsonl", '{"path": 7, "video": null}', "a.jsonl:1: video is neither"),
        ("a.jsonl", '{"path": "good.jpg", "tracklet": true}', "a.jsonl:1: tracklet is neither"),
        ("a.jsonl", '{"path": "good.jpg", "frame": 1.0}', "a.jsonl:1: frame 'float' is not a whole number"),
        ("a.jsonl", '{"path": "good.jpg", "frame": true}', "a.jsonl:1: frame 'True' is not a whole number"),
        ("a.txt", "good.jpg", "a.txt: ends neither with .csv nor with .jsonl"),
    ],
)
def test_manifest_refuses_other_tables(tmp_path: Path, name: str, text: str, named: str) -> None:
    plant(tmp_path, "good.jpg")
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert named in refusal("manifest", tmp_path / name)
