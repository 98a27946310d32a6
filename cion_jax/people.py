"""What `cion people` does, step by step: each step is a command that anybody can give by hand.

OUT/data          the tracklets of people in the videos
OUT/run           the training on them
OUT/features      a feature for each image
OUT/labels.npz    who is who
OUT/people.html   a row for each person
OUT/index         what `cion search` asks
OUT/steps.json    the commands that are done, so that a repeated one goes on behind them
"""

import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from cion_jax.atomic import write_atomically
from cion_jax.config import Tracking
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.untrusted import read_json

STEPS = "steps.json"
#: On CPUs: how often each image is seen in training, and the fewest and the most steps. A step has BATCH images.
PASSES = 8
FEWEST, MOST = 240, 3000
BATCH = 48
EPOCHS = 8
#: Seconds of one core that a step takes, and that are needed to compile it; measured on x86_64, to tell how long it
#: will last.
STEP_SECONDS, COMPILE_SECONDS = 0.25, 40.0
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl


class Step(NamedTuple):
    """A step on the way."""

    title: str
    words: list[str]
    """The command line, without `cion`."""
    lasts: str = ""
    """About how long."""


@dataclass(frozen=True)
class Wanted:
    """What was asked for."""

    videos: tuple[Path, ...]
    out: Path
    tracking: Tracking
    weights: Path | None = None
    backbone: str | None = None
    """That of the weights."""
    train: bool = True
    epochs: int | None = None


def steps(wanted: Wanted, on_cpu: Callable[[], bool]) -> Iterator[Step]:
    """The steps, in order; how long to train is known once the first is done.

    Args:
        wanted: What was asked for.
        on_cpu: Says whether there is no accelerator.
    """
    out = wanted.out
    data, run, features, labels = (str(out / name) for name in ("data", "run", "features", "labels.npz"))
    tracking = _options(wanted.tracking, Tracking())
    yield Step("find and follow people", ["data", "import", "video", str(_source(wanted)), data, *tracking])
    if wanted.train:
        yield _training(wanted, data, run, on_cpu())
    weights = run if wanted.train else str(wanted.weights)
    yield Step("a feature for each image", ["embed", weights, data, features, "--flip", "--match-colours"])
    pages = ["--images", data, "--people", str(out / "people.html")]
    yield Step("who is who, and the page of people", ["denoise", features, labels, *pages])
    yield Step("an index to ask", ["index", features, str(out / "index"), "--labels", labels])


def _source(wanted: Wanted) -> Path:
    """The video; or a list of them, which is written."""
    if len(wanted.videos) == 1:
        return wanted.videos[0]
    path = wanted.out / "videos.txt"
    lines = "".join(f"{os.path.relpath(video, wanted.out)}\n" for video in wanted.videos)
    write_atomically(path, lambda aside: aside.write_text(lines))
    return path


def _training(wanted: Wanted, data: str, run: str, on_cpu: bool) -> Step:
    """A training whose length goes by the device and the amount of video."""
    words = ["pretrain", "people" if on_cpu else "small", data, run]
    lasts = ""
    if on_cpu:
        images = len(Records(data))
        total = min(max(PASSES * images // BATCH, FEWEST), MOST)
        epoch_steps = total // EPOCHS
        words += ["--epoch-steps", str(epoch_steps)]
        seconds = COMPILE_SECONDS + STEP_SECONDS * epoch_steps * (wanted.epochs or EPOCHS)
        lasts = f"about {max(seconds / len(os.sched_getaffinity(0)) / 60, 1):.0f} min if nothing else runs"
    if wanted.epochs is not None:
        words += ["--epochs", str(wanted.epochs)]
    if wanted.weights is not None:
        words += ["--weights", str(wanted.weights), "--backbone", str(wanted.backbone)]
    return Step("learn from their tracklets, and find out on the way who is who", words, lasts)


def _options(settings: Any, usual: Any) -> list[str]:
    """Those fields, as options, that are not as usual."""
    words = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value != getattr(usual, field.name):
            words += [f"--{field.name.replace('_', '-')}", str(value)]
    return words


def do_steps(out: Path, planned: Iterator[Step], run: Callable[[Sequence[str]], int]) -> int:
    """Do what is not done yet, and say each command; the exit code of the one that did not come to its end, or 0."""
    path = out / STEPS
    done = read_json(path, "remove it to go through all steps again") if path.exists() else {}
    is_new = False
    for number, step in enumerate(planned, 1):
        command = shlex.join(["cion", *step.words])
        lasts = f" ({step.lasts})" if step.lasts else ""
        if not is_new and done.get(step.title) == command:
            print(f"== {number}. {step.title}: done before", flush=True)
            continue
        print(f"== {number}. {step.title}{lasts}\n   {command}", flush=True)
        is_new = True  # what comes after is made of it
        if code := run(step.words):
            print(f"cion: step {number} ended with code {code}; the same command goes on from here", file=sys.stderr)
            return code
        done[step.title] = command
        write_atomically(path, lambda aside: aside.write_text(json.dumps(done, indent=1) + "\n"))
    return 0


def run_command(words: Sequence[str]) -> int:
    """The exit code of a command of `cion`, in a process of its own; being asked to stop is handed on to it."""
    begin = f"import sys; from cion_jax.people import end_with; end_with({os.getpid()})"
    program = f"{begin}; from cion_jax.cli import main; sys.exit(main())"
    process = subprocess.Popen([sys.executable, "-c", program, *words])
    with _handed_on(process):
        code = process.wait()
    return code if code >= 0 else 128 - code


def end_with(parent: int) -> None:
    """End this process when its parent is killed, where the system is Linux: the next one would write where it does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def on_cpu() -> bool:
    """Whether JAX finds no accelerator. A process of its own asks: this one would keep memory that training needs."""
    program = "import jax; print(jax.default_backend())"
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return asked.stdout.split()[-1:] == ["cpu"]


@contextmanager
def _handed_on(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """SIGTERM goes to the process; Ctrl-C reaches it by itself, and this one waits for its end."""
    handlers = {signal.SIGTERM: lambda *_: process.terminate(), signal.SIGINT: lambda *_: None}
    usual = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def check(wanted: Wanted) -> None:
    """Refuse what cannot work before anything is begun."""
    if missing := [video for video in wanted.videos if not video.exists()]:
        raise UserError(f"{missing[0]}: no such file; name videos, folders of videos, and at last the folder to write")
    if len(wanted.videos) > 1 and (folders := [video for video in wanted.videos if not video.is_file()]):
        raise UserError(f"{folders[0]}: a folder among several videos; name one folder, or files")
    if wanted.weights is not None and not wanted.weights.exists():
        raise UserError(f"--weights {wanted.weights}: no such file; name a run, or weights")
    if not wanted.train and wanted.weights is None:
        raise UserError("--no-train: needs the weights to go by; give them with --weights")
    if not wanted.train and wanted.epochs is not None:
        raise UserError("--no-train and --epochs: leave one of them out")
    if wanted.epochs is not None and wanted.epochs < 2:
        raise UserError(f"--epochs {wanted.epochs}: who is who is found on the way, so there must be at least 2")
