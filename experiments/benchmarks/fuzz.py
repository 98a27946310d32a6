"""Does anything wrong go unnoticed? Each kind of file that the program reads is damaged by chance, and then read.

python -m experiments.benchmarks.fuzz

A fault is a traceback, a reader that needs more than 20 seconds or 500 MB, a refusal of more than one line, or, where a
file has digests or checksums, another result without a refusal. Text that users write has none: there a changed number
is another statement, which is counted apart.
"""

import io
import json
import resource
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from cion_jax.cli import main as cion
from cion_jax.config import Bnneck
from cion_jax.data.labels import write_labelling
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.evaluate.feature_store import open_images, read_features, write_features
from cion_jax.evaluate.group_table import read_groups
from cion_jax.evaluate.query_gallery import load_npz
from cion_jax.gallery.build import from_features
from cion_jax.gallery.store import read, save
from cion_jax.models.zoo import Backbone
from cion_jax.report.curves import read_curves
from cion_jax.report.run import read_run, what_was_run
from cion_jax.run.journal import read_metrics
from cion_jax.run.learned import divide
from cion_jax.weights.foreign import read_metadata, read_state, write_state
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment
from tfrecords_tools.importers.cional import cional
from tfrecords_tools.importers.manifest import manifest
from tfrecords_tools.importers.mot import mot

SECONDS = 20
BYTES = 500 << 20
#: What becomes of a damaged file.
OUTCOMES = ("refused in a line", "harmless", "another statement", "faults")
_SIZE = (32, 16)


class Kind(NamedTuple):
    """A kind of file."""

    file: str
    """Where one stands, in the folder that `make_files` fills; a pattern where a digest is in its name."""
    read: Callable[[Path], object]
    """Reads it, in that folder, and gives what it says; a UserError refuses it."""
    sealed: bool = True
    """Whether digests or checksums must notice whatever changes what it says."""


def _run(*arguments: object) -> str:
    """What a command prints; a UserError with what it says if it ends with another code than 0."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cion([str(argument) for argument in arguments])
    if code:
        lines = [*err.getvalue().splitlines(), *out.getvalue().splitlines()]
        raise UserError(lines[0] if arguments[:2] == ("data", "check") else "\n".join(lines))
    return out.getvalue()


def _check_and_read(folder: Path, name: str = "world", split: str = "train") -> object:
    _run("data", "check", folder / name)
    return _run("data", "stats", folder / name, "--json"), [*Records(folder / name, split)]


def _sheet(folder: Path) -> bytes:
    _run("data", "sheet", folder / "world", folder / "sheet.png", "--labels", folder / "world" / "truth.npz")
    return (folder / "sheet.png").read_bytes()


def _weights(path: Path) -> object:
    # A name of the digest that was damaged is one more text; what the program looks for is the same.
    said = read_metadata(path)
    return {name: said.get(name) for name in ("backbone", "image_size")}, read_state(path)


def _curves(folder: Path) -> object:
    return read_curves(read_metrics(folder / "run" / "metrics.jsonl"))


def _sources(sources: dict[str, Any]) -> object:
    return {name: (source.labels, source.fingerprint()) for name, source in sources.items()}


def _gallery(folder: Path) -> object:
    gallery = read(folder / "gallery")
    return gallery.features, gallery.rows, gallery.origin


def _learned(folder: Path) -> object:
    settings = Bnneck(identities_file=folder / "list.txt", batch=4, instances=2, validation=0)
    return divide(settings, Records(folder / "world", "gallery")).labels


KINDS = {
    "record shard": Kind("world/cion-query.tfrecord-00000-of-00001", _check_and_read),
    "index": Kind("world/cion-gallery.index.npy", _check_and_read),
    "card": Kind("world/cion.json", _check_and_read),
    "TFDS info": Kind("world/dataset_info.json", _check_and_read),
    "TFDS features": Kind("world/features.json", _check_and_read),
    "adopted card": Kind("adopted/cion.json", partial(_check_and_read, name="adopted", split="query")),
    "adopted index": Kind("adopted/cion-query.index.npy", partial(_check_and_read, name="adopted", split="query")),
    "labels": Kind("world/truth.npz", _sheet),
    "features, card": Kind("features/features.json", lambda folder: read_features(folder / "features", "query")),
    "features, shard": Kind(
        "features/query/features-00000-of-00001.npy", lambda folder: read_features(folder / "features", "query")
    ),
    "features, .npz": Kind("features.npz", lambda folder: load_npz(folder / "features.npz")),
    "gallery, card": Kind("gallery/index.json", _gallery),
    "gallery, features": Kind("gallery/files/features-*.npy", _gallery),
    "gallery, rows": Kind("gallery/files/rows-*.npy", _gallery),
    "weights, safetensors": Kind("ours.safetensors", lambda folder: _weights(folder / "ours.safetensors")),
    "weights, .pth": Kind("theirs.pth", lambda folder: read_state(folder / "theirs.pth")),
    "settings": Kind("run/settings.json", lambda folder: [*what_was_run(read_run(folder / "run"))], sealed=False),
    "origin": Kind("run/origin.json", lambda folder: [*what_was_run(read_run(folder / "run"))], sealed=False),
    "journal": Kind("run/metrics.jsonl", _curves, sealed=False),
    "manifest, CSV": Kind("list.csv", lambda folder: _sources(manifest(folder / "list.csv")), sealed=False),
    "manifest, JSONL": Kind("list.jsonl", lambda folder: _sources(manifest(folder / "list.jsonl")), sealed=False),
    "annotations": Kind(
        "list.json", lambda folder: _sources(cional(folder, annotations=folder / "list.json")), sealed=False
    ),
    "boxes": Kind("mot/gt/gt.txt", lambda folder: _sources(mot(folder / "mot", min_height=8)), sealed=False),
    "identities": Kind("list.txt", _learned, sealed=False),
    "groups": Kind("groups.csv", lambda folder: read_groups(folder / "groups.csv"), sealed=False),
}


class _Means(nn.Module):
    """A network of one layer on the mean colour."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return nn.Dense(4)(x.mean((1, 2)))


def make_files(folder: Path) -> None:
    """Write one whole file of each kind."""
    size = [f"--height={_SIZE[0]}", f"--width={_SIZE[1]}", "--test-identities=4", "--distractors=2"]
    _run("data", "synth", folder / "world", "--identities=4", "--videos=3", "--cameras=2", "--workers=1", *size)
    model = Backbone("means", "none", "none", (), _SIZE, False, _Means(), None)
    features = folder / "features"
    write_features(
        features, open_images(folder / "world", "query"), model, model.init(jax.random.key(0)), image_size=_SIZE
    )
    rows, index = read_features(features, "query")
    sides = {"": rows, "_identity": index["identity"], "_camera": index["camera"]}
    arrays = {f"{split}{name}": values for split in ("query", "gallery") for name, values in sides.items()}
    np.savez(folder / "features.npz", **arrays)  # type: ignore[arg-type]
    save(folder / "gallery", from_features(features, "query"))
    (folder / "adopted").mkdir()
    for shard in (folder / "world").glob("cion-query.tfrecord*"):
        shutil.copy(shard, folder / "adopted" / shard.name.replace("cion", "theirs"))
    _run(
        "data", "adopt", folder / "adopted", "--shards", "query=theirs-*", "--identity-feature=identity", "--workers=1"
    )
    kernel: np.ndarray = np.arange(96, dtype=np.float32).reshape(8, 3, 2, 2)
    state = {"conv1.weight": kernel, "bn1.running_var": np.ones(8)}
    write_state(folder / "ours.safetensors", state, metadata={"backbone": "resnet18", "image_size": "256x128"})
    write_state(folder / "theirs.pth", state, wrap="teacher")
    (folder / "run" / "labels").mkdir(parents=True)
    settings = {"backbone": "resnet18", "level": "identity", "epochs": 3, "labels": None, "stages": [0, 2]}
    (folder / "run" / "settings.json").write_text(json.dumps(settings | {"head": {"prototypes": 64}}, indent=1))
    origin = {"data": "/nowhere", "fingerprint": "f", "began": "today", "environment": {"jax": "0.10"}}
    (folder / "run" / "origin.json").write_text(json.dumps(origin, indent=1))
    write_labelling(folder / "run" / "labels" / "epoch-00001.npz", np.zeros(4), "f", {}, noise=np.ones((3, 4), int))
    steps = [{"step": step, "epoch": step / 4, "loss": 9 - step / 4, "learning_rate": 1e-3} for step in range(12)]
    (folder / "run" / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    _make_lists(folder)


def _make_lists(folder: Path) -> None:
    """The texts in which users say where images are and who is who, and the images."""
    records = Records(folder / "world", "gallery")
    names = [f"images/{number}.jpg" for number in range(6)]
    (folder / "images").mkdir()
    (folder / "mot" / "img1").mkdir(parents=True)
    (folder / "mot" / "gt").mkdir()
    for number, name in enumerate(names):
        (folder / name).write_bytes(records[number].image)
        (folder / "mot" / "img1" / f"{number + 1:06}.jpg").write_bytes(records[number].image)
    rows = [{"path": name, "video": 1, "tracklet": n // 2, "frame": n, "identity": n} for n, name in enumerate(names)]
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "list.json").write_text(json.dumps([{"file_path": name, "id": n} for n, name in enumerate(names)]))
    boxes = [f"{frame},{track},{4 * track},2,10,24,1\n" for frame in range(1, 7) for track in (1, 0)]
    (folder / "mot" / "gt" / "gt.txt").write_text("".join(boxes))
    people = np.unique(records.index["identity"])
    (folder / "list.txt").write_text("".join(f"{person}\n" for person in people if person > 0))
    groups = [f"{person},{'old' if person % 2 else ''}\n" for person in people + 2]
    (folder / "groups.csv").write_text("".join(["identity,age\n", *groups]))


def damaged(data: bytes, how: int, random: np.random.Generator) -> bytes:
    """The bytes of a file with one thing changed; six kinds of changes take turns."""
    place = int(random.integers(len(data)))
    change = (_flip, _cut, _append, _number, _zero, _swap)[how % 6]
    return change(data, place, random)


def _flip(data: bytes, place: int, random: np.random.Generator) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << int(random.integers(8))]) + data[place + 1 :]


def _cut(data: bytes, place: int, random: np.random.Generator) -> bytes:
    return data[:place]


def _append(data: bytes, place: int, random: np.random.Generator) -> bytes:
    return data + (data[place : place + 50] if random.integers(2) else random.bytes(20))


def _number(data: bytes, place: int, random: np.random.Generator) -> bytes:
    """Another number in the place of the digits that follow, or of eight bytes where none do."""
    number = int(random.choice([0, 1, -1, 7, 2**31, 2**32 - 1, 2**62]))
    start = next((i for i in range(place, min(place + 60, len(data))) if data[i : i + 1].isdigit()), None)
    if start is None:
        return data[:place] + number.to_bytes(8, "little", signed=True) + data[place + 8 :]
    end = next((i for i in range(start, len(data)) if not data[i : i + 1].isdigit()), len(data))
    return data[:start] + str(number).encode() + data[end:]


def _zero(data: bytes, place: int, random: np.random.Generator) -> bytes:
    size = min(int(random.integers(1, 200)), len(data) - place)
    return data[:place] + bytes(size) + data[place + size :]


def _swap(data: bytes, place: int, random: np.random.Generator) -> bytes:
    """A value of another type in JSON, in the line of that place if lines are JSON; else two blocks change places."""
    before, line, after = b"", data, b""
    for _ in range(2):
        try:
            return before + json.dumps(_retyped(json.loads(line), random)).encode() + after
        except ValueError:
            start = data.rfind(b"\n", 0, place) + 1
            stop = data.find(b"\n", place) % (len(data) + 1)
            before, line, after = data[:start], data[start:stop], data[stop:]
    middle = (place + len(data)) // 2
    return data[:place] + data[middle:] + data[place:middle]


def _retyped(value: Any, random: np.random.Generator) -> Any:
    """The value with one thing in it, or all of it, of another type."""
    if isinstance(value, dict | list) and value and random.integers(8):
        keys = [*value] if isinstance(value, dict) else [*range(len(value))]
        key = keys[int(random.integers(len(keys)))]
        value[key] = _retyped(value[key], random)
        return value
    others: list[Any] = [None, True, -1, 0.5, 10**30, "x", [], {}, [[]], {"x": {}}, "\0", 1e300]
    return others[int(random.integers(len(others)))]


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tried(folder: Path, kind: Kind, expected: str) -> tuple[str, str]:
    """What becomes of a damaged file, one of OUTCOMES, and why it is a fault."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with _limited(SECONDS):
            same = _as_text(kind.read(folder)) == expected
    except UserError as error:
        outcome = ("refused in a line", "") if "\n" not in str(error) else ("faults", f"lines: {error}")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome = "faults", "".join(traceback.format_exception(error)[-3:])
    else:
        changed = ("faults", "another result unseen") if kind.sealed else ("another statement", "")
        outcome = ("harmless", "") if same else changed
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - largest)
    return outcome if grown < BYTES else ("faults", f"took {grown / 1e6:,.0f} MB")


def _as_text(value: object) -> str:
    with np.printoptions(threshold=1 << 30, floatmode="unique"):
        return repr(value)


def campaign(folder: Path, name: str, tries: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Damage and read a kind of file so many times: how often each of OUTCOMES came out, and a line for each fault."""
    kind = KINDS[name]
    (path,) = folder.glob(kind.file)
    whole = path.read_bytes()
    expected = _as_text(kind.read(folder))
    counts: Counter[str] = Counter()
    faults = []
    for number in count():
        if counts.total() == tries:
            break
        data = damaged(whole, number, np.random.default_rng([seed, number, *name.encode()]))
        if data != whole:
            path.write_bytes(data)
            outcome, why = tried(folder, kind, expected)
            counts[outcome] += 1
            faults += [f"{name}, change {number} of seed {seed}: {why}"] if outcome == "faults" else []
    path.write_bytes(whole)
    return counts, faults


def main(tries: int = 30, seed: int = 0, only: tuple[str, ...] = ()) -> int:
    """Print a table of what became of damaged files, and each fault; ends with code 1 if there is any.

    Args:
        tries: Damaged files of each kind.
        seed: Of the damages.
        only: The kinds to try; without any, all.
    """
    all_faults = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_files(folder)
        print(f"{environment('numpy', 'safetensors')}\n\n| | tried | {' | '.join(OUTCOMES)} |\n|---|{'---|' * 5}")
        for name in only or KINDS:
            counts, faults = campaign(folder, name, tries, seed)
            figures = [counts.total(), *(counts[outcome] for outcome in OUTCOMES)]
            print(f"| {name} | {' | '.join(map(str, figures))} |", flush=True)
            all_faults += faults
        shutil.rmtree(folder / "world")
    print("", *all_faults, sep="\n")
    return 1 if all_faults else 0


if __name__ == "__main__":
    command(main)
