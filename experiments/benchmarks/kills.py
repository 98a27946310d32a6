"""Is anything lost when a command is killed? Each is ended by SIGKILL at moments drawn by chance, and then repeated.

python -m experiments.benchmarks.kills                             # every command, 30 moments each: takes long
python -m experiments.benchmarks.kills pretrain embed --moments 3

A command is killed three times on its way, if it does not end before, and then let go on to its end. All that it wrote
must be what it writes when nobody disturbs it, byte for byte; only what tells the time is left out. A process that
outlives its parent by ten seconds, a traceback and a hang of five minutes are faults too. Beside the kills it is tried
once each with a second process on the same output, changed settings in between, a disk that is full at half the size
(this needs the right to mount), an output that is read-only, and no more memory from a moment on.
"""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tyro.conf import Positional

from cion_jax.errors import UserError
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment

#: Kills on one way to the end.
_CHAIN = 3
#: Seconds after which a command hangs, and in which its processes must end after it.
_LONGEST, _ORPHANS = 300, 10
#: What tells the time, or is another form of what is compared.
_PASSED_OVER = {"tensorboard", "checkpoints", "origin.json"}
_CLOCK = {"time", "images_per_second", "waiting"}
_SETTINGS = """
from cion_jax.config import Crops, Head, Optimization, Pretraining

settings = Pretraining(
    backbone="resnet10_half_ibn", epochs=4, epoch_steps=8, batch=16, instances=(2, 4), stages=(0, 2), relabel=(1, 3),
    image_size=(32, 16), crops=Crops(global_size=(32, 16), local_size=(16, 8), local_crops=2), precision="float32",
    head=Head(prototypes=64, hidden=32, bottleneck=16, block=64), optimization=Optimization(warmup=1),
    checkpoint_steps=3,
)
"""


class Kind(NamedTuple):
    """A command, and how its settings may be changed."""

    arguments: str
    """With the folder of the benchmark as the present one; it writes to OUT."""
    changed: str = ""
    """Options with which it may not go on; nothing where it always begins anew."""

    @property
    def writes_a_file(self) -> bool:
        """Whether its output is one file, which is there as a whole or not at all."""
        return "OUT." in self.arguments


_TINY = "--identities 8 --videos 4 --cameras 2 --test-identities 4 --distractors 5 --height 32 --width 16"
_FINE = (
    "--epochs 3 --epoch-steps 4 --batch 8 --instances 4 --image-size 32 16 --size 32 16 --precision float32 "
    "--checkpoint-steps 3"
)
KINDS = {
    "data synth": Kind(f"data synth OUT {_TINY} --identities 60 --images-per-shard 64", "--seed 1"),
    "data import": Kind("data import folders folders OUT --images-per-shard 32", "--images-per-shard 16"),
    "data repack": Kind("data repack world OUT --order grouped --images-per-shard 32", "--images-per-shard 16"),
    "data export": Kind("data export world OUT"),
    "pretrain": Kind("pretrain settings.py world OUT --evaluate world --evaluate-every 1", "--seed 1"),
    "finetune": Kind(
        f"finetune bnneck weights world OUT --labels world/truth.npz --validation 0.3 {_FINE}", "--seed 1"
    ),
    "adapt": Kind(f"adapt weights world OUT --by denoise --tau 0.3 {_FINE}", "--seed 1"),
    "embed": Kind("embed weights world OUT --flip --match-colours --batch 16", "--precision bfloat16"),
    "denoise": Kind("denoise features OUT.npz"),
    "export": Kind("export weights/teacher.safetensors OUT.pth"),
}


class Row(NamedTuple):
    """What became of a command."""

    tried: int
    survived: int
    beside: dict[str, str]
    """The other mishaps by name, each with its outcome."""


def main(names: Positional[tuple[str, ...]] = (), moments: int = 30, seed: int = 0) -> int:
    """Kill commands, repeat them, compare what they wrote, and print a table.

    Args:
        names: Which commands, as "data synth" or pretrain; all by default.
        moments: How often each is killed.
        seed: The moments follow from it.
    """
    if unknown := [name for name in names if name not in KINDS]:
        raise UserError(f"no command here is called {', '.join(unknown)}; there are {', '.join(KINDS)}")
    with tempfile.TemporaryDirectory() as scratch, _in_folder(Path(scratch)):
        _prepare({*(names or KINDS)})
        rows = {name: _campaign(name, KINDS[name], moments, random.Random(seed)) for name in names or KINDS}
    print("\n".join(table(rows)))
    return 0 if all(row.tried == row.survived and "FAULT" not in str(row.beside) for row in rows.values()) else 1


def table(rows: dict[str, Row]) -> Iterator[str]:
    """The rows in Markdown."""
    mishaps = list(_MISHAPS)
    yield environment("jax", "numpy")
    yield ""
    yield f"| command | killed | same bytes after | {' | '.join(mishaps)} |"
    yield f"|---|---:|---:|{'---|' * len(mishaps)}"
    for name, row in rows.items():
        yield f"| {name} | {row.tried} | {row.survived} | {' | '.join(row.beside[each] for each in mishaps)} |"


def _prepare(names: set[str]) -> None:
    """What the commands read, in the present folder."""
    Path("settings.py").write_text(_SETTINGS)
    _whole(f"data synth world {_TINY}")
    if "data import" in names:
        _whole("data export world folders --split train")
    if names & {"finetune", "adapt", "embed", "denoise", "export"}:
        _whole("pretrain settings.py world weights --epochs 1 --stages 0 --instances 2 --level tracklet --relabel")
    if "denoise" in names:
        _whole("embed weights world features --split train --batch 16")


def _campaign(name: str, kind: Kind, moments: int, draw: random.Random) -> Row:
    """Undisturbed, then killed again and again, then the other mishaps."""
    calm = Path("calm").absolute()
    _whole(kind.arguments.replace("OUT", str(calm / "out")), calm)
    shutil.rmtree(calm)
    began = time.monotonic()  # again: now all programs are in the cache
    _whole(kind.arguments.replace("OUT", str(calm / "out")), calm)
    attempt = _Attempt(kind, contents(calm), time.monotonic() - began, draw)
    shutil.rmtree(calm)
    tried = survived = 0
    while tried < moments:
        killed, is_same = attempt.killed_on_the_way(min(_CHAIN, moments - tried))
        tried += killed
        survived += killed * is_same
        print(f"{name}: killed {tried} times, {survived} survived", file=sys.stderr, flush=True)
    return Row(tried, survived, {mishap: happen(attempt) for mishap, happen in _MISHAPS.items()})


@dataclass
class _Attempt:
    """A command to be disturbed."""

    kind: Kind
    expected: dict[str, str]
    seconds: float
    """How long it takes; the machine may be busy at one time and not at another."""
    draw: random.Random

    def killed_on_the_way(self, times: int) -> tuple[int, bool]:
        """How often it was killed before it came to its end, and whether all is there as it should be."""
        killed = 0
        with _folder("killed") as folder:
            for _ in range(times):
                began = time.monotonic()
                process = self.begin(folder)
                try:
                    process.wait(self.draw.uniform(0.2, 1) * self.seconds)
                    self.seconds = time.monotonic() - began
                except subprocess.TimeoutExpired:
                    process.kill()
                    killed += 1
                if not _ended(process):
                    return killed, False
            return killed, self.ends_as_expected(folder)

    def begin(self, folder: Path, *options: str) -> "subprocess.Popen[str]":
        """Start it in a process of its own."""
        return _start(self.kind.arguments.replace("OUT", str(folder / "out")), *options)

    def ends_as_expected(self, folder: Path) -> bool:
        """Whether it comes to its end now, and has written what it should."""
        return _outcome(self.begin(folder))[0] == 0 and contents(folder) == self.expected


def _second_process(attempt: _Attempt) -> str:
    """Another one with the same output, while the first is at work."""
    if attempt.kind.writes_a_file:
        return "-"
    with _folder("two") as folder:
        first = attempt.begin(folder)
        _wait_for_output(first, folder)
        time.sleep(0.1)
        first.send_signal(signal.SIGSTOP)  # or it may be done before the other has begun
        code, said = _outcome(attempt.begin(folder))
        first.send_signal(signal.SIGCONT)
        is_whole = _outcome(first)[0] == 0 and contents(folder) == attempt.expected
        if is_whole and code == 0 and "was finished before" in said:
            return "the first was done"  # before it was stopped
        return _refused_well(code, said, "another process") if is_whole else "FAULT: the first"


def _changed_settings(attempt: _Attempt) -> str:
    """Killed, and then called with other settings: refused, and nothing is lost."""
    if not attempt.kind.changed:
        return "-"
    with _folder("changed") as folder:
        process = attempt.begin(folder)
        _wait_for_output(process, folder)
        time.sleep(0.05 * attempt.seconds)
        process.kill()
        _ended(process)
        before = contents(folder)
        code, said = _outcome(attempt.begin(folder, *attempt.kind.changed.split()))
        is_left_alone = contents(folder) == before and attempt.ends_as_expected(folder)
        return _refused_well(code, said) if is_left_alone else "FAULT: something was lost"


def _wait_for_output(process: "subprocess.Popen[str]", folder: Path) -> None:
    while process.poll() is None and not any(folder.iterdir()):
        time.sleep(0.01)


def _full_disk(attempt: _Attempt) -> str:
    """Half the room that it needs; then enough."""
    with _disk(_half_of(attempt)) as disk:
        if disk is None:
            return "not tried"
        code, said = _outcome(attempt.begin(disk))
        if code == 0 and contents(disk) == attempt.expected:
            return "fits"  # a disk has whole pages
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        return _refused_well(code, said) if attempt.ends_as_expected(disk) else "FAULT: something was lost"


def _half_of(attempt: _Attempt) -> int:
    """Half the bytes that a command leaves."""
    with _folder("size") as folder:
        _outcome(attempt.begin(folder))
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) // 2


def _read_only(attempt: _Attempt) -> str:
    with _disk(1 << 20) as disk:
        if disk is None:
            return "not tried"
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        return _refused_well(*_outcome(attempt.begin(disk)))


def _no_more_memory(attempt: _Attempt) -> str:
    """From a moment on no byte more than there is; it may end as it likes, but nothing may be lost."""
    with _folder("memory") as folder:
        process = attempt.begin(folder)
        time.sleep(0.6 * attempt.seconds)
        with suppress(OSError, StopIteration):
            status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            now = 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmSize"))
            resource.prlimit(process.pid, resource.RLIMIT_AS, (now, now))
        _outcome(process, 60)
        return "same bytes after" if attempt.ends_as_expected(folder) else "FAULT: something was lost"


_MISHAPS: dict[str, Callable[[_Attempt], str]] = {
    "a second process": _second_process,
    "other settings": _changed_settings,
    "a full disk": _full_disk,
    "a read-only one": _read_only,
    "no more memory": _no_more_memory,
}


def _refused_well(code: int, said: str, words: str = "") -> str:
    """How an outcome is called: a refusal is one line, and another code than 0."""
    lines = [line for line in said.splitlines() if line.startswith("cion: ")]
    if code == 0 or "Traceback" in said or not lines or words not in said:
        print(said, file=sys.stderr)
        return f"FAULT: code {code}"
    return "a line"


def contents(folder: Path) -> dict[str, str]:
    """A digest of each file in a folder, but for those that tell the time."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    kept = (path for path in files if not _PASSED_OVER & {*path.relative_to(folder).parts})
    return {str(path.relative_to(folder)): hashlib.sha256(_timeless(path)).hexdigest() for path in kept}


def _timeless(path: Path) -> bytes:
    """What a file says, without the time."""
    if path.name != "metrics.jsonl":
        return path.read_bytes()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return json.dumps([{key: row[key] for key in row.keys() - _CLOCK} for row in rows], sort_keys=True).encode()


def _whole(arguments: str, folder: Path | None = None) -> None:
    """Run a command to its end; whatever it says is shown if it fails."""
    if folder is not None:
        folder.mkdir(exist_ok=True)
    code, said = _outcome(_start(arguments))
    if code:
        raise UserError(f"cion {arguments} ended with code {code}: {said}")


def _start(arguments: str, *options: str) -> "subprocess.Popen[str]":
    program = Path(sys.executable).with_name("cion")
    surroundings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(Path("cache").absolute()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [str(program), *arguments.split(), *options],
        env=os.environ | surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _outcome(process: "subprocess.Popen[str]", longest: float = _LONGEST) -> tuple[int, str]:
    """The code with which it ends, and what it said; one that hangs is ended, and has no code of 0."""
    try:
        said = process.communicate(timeout=longest)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return -1, process.communicate()[0] + "it hung"
    return process.returncode, said


def _ended(process: "subprocess.Popen[str]") -> bool:
    """Whether all processes of a session end soon after the first; else they are ended."""
    process.communicate()
    for _ in range(10 * _ORPHANS):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    return False


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    """A new folder for an output; it is taken away again."""
    folder = Path(name).absolute()
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@contextmanager
def _disk(size: int) -> Iterator[Path | None]:
    """A disk of so many bytes; None where one may not mount one."""
    with _folder("disk") as folder:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={max(size, 1 << 14)}", "tmpfs", str(folder)], capture_output=True
        )
        try:
            yield folder if mounted.returncode == 0 else None
        finally:
            if mounted.returncode == 0:
                subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


if __name__ == "__main__":
    command(main)
