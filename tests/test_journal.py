"""The journal of a run: nothing twice, nothing lost by a kill, and a word when a run collapses."""

import io
import itertools
import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from cion_jax.data.tfrecord import FOOTER_BYTES, HEADER_BYTES, unframe
from cion_jax.errors import UserError
from cion_jax.programs import devices
from cion_jax.programs.devices import peak_flops, utilization
from cion_jax.run import journal
from cion_jax.run.journal import METRICS, SETTLED, TENSORBOARD, Journal, read_metrics, watch
from cion_jax.run.profile import WARM_UP, profile

HEALTHY = {"loss": 9.0, "entropy": 6.0, "feature_std": 0.5, "center_norm": 4.0}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the journal sees, as its only entry."""
    now = [1000.0]
    monkeypatch.setattr(journal, "monotonic", lambda: now[0])
    return now


def keep(folder: Path, steps: range, first_step: int = 0, **values: float) -> None:
    with Journal(folder, 100, first_step, 48, None) as kept:
        for step in steps:
            kept.record(step, step / 10, {**HEALTHY, "step_of": step, **values}, 0.0)


def events(folder: Path) -> list[Event]:
    """What TensorBoard would read, files in order."""
    result = []
    for path in sorted((folder / TENSORBOARD).glob("events*")):
        data = path.read_bytes()
        while data:
            payload, _ = unframe(data)
            result.append(Event.FromString(payload))
            data = data[HEADER_BYTES + len(payload) + FOOTER_BYTES :]
    return result


def test_a_resumed_run_has_every_step_once(tmp_path: Path) -> None:
    keep(tmp_path, range(7), run=1)
    keep(tmp_path, range(4, 9), first_step=4, run=2)
    rows = read_metrics(tmp_path / METRICS)
    assert [(row["step"], row["run"]) for row in rows] == [(step, 1 if step < 4 else 2) for step in range(9)]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [METRICS]


def test_a_torn_last_line_is_passed_over_and_dropped_by_a_resume(tmp_path: Path) -> None:
    keep(tmp_path, range(3))
    path = tmp_path / METRICS
    whole = path.read_bytes()
    for torn in (b'{"step": 3, "loss": 1', b'{"step": 3}', b"\xff\x00"):
        path.write_bytes(whole + torn)
        assert [row["step"] for row in read_metrics(path)] == [0, 1, 2]
    keep(tmp_path, range(3, 4), first_step=3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]


@pytest.mark.parametrize("line", ["nonsense", "5", '{"loss": 1}'])
def test_damage_elsewhere_is_told_with_its_line(tmp_path: Path, line: str) -> None:
    keep(tmp_path, range(2))
    path = tmp_path / METRICS
    path.write_text(path.read_text() + line + "\n" + '{"step": 3}\n')
    with pytest.raises(UserError, match=rf"{METRICS}: line 3 .*remove"):
        read_metrics(path)


def test_a_kill_in_the_middle_of_writing_leaves_a_readable_file(tmp_path: Path) -> None:
    code = f"""
import itertools
from pathlib import Path
from cion_jax.run.journal import Journal
with Journal(Path({str(tmp_path)!r}), 10**9, 0, 48, None) as kept:
    for step in itertools.count():
        kept.record(step, 0.0, {{f"value{{n}}": step + n / 7 for n in range(50)}}, 0.0)
        if step == 20:
            print("under way", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        assert run.stdout is not None and run.stdout.readline() == "under way\n"
        run.send_signal(signal.SIGKILL)
    rows = read_metrics(tmp_path / METRICS)
    assert [row["step"] for row in rows] == list(range(len(rows))) and len(rows) > 20
    assert all(row["value7"] == row["step"] + 1 for row in rows)


def test_each_step_is_in_the_file_at_once_and_in_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []

    class Unbuffered(io.FileIO):
        def write(self, data: bytes) -> int:
            writes.append(data)
            return super().write(data)

    def opened(path: Path, mode: str, buffering: int) -> Unbuffered:
        assert path.name == METRICS and buffering == 0
        return Unbuffered(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        kept = Journal(tmp_path, 100, 0, 48, None)
    with kept:
        for step in range(3):
            kept.record(step, 0.0, HEALTHY, 0.0)
            assert (tmp_path / METRICS).read_bytes() == b"".join(writes)
        assert [line.count(b"\n") for line in writes] == [1, 1, 1] and all(line.endswith(b"\n") for line in writes)


def test_what_is_no_number_is_valid_json_and_comes_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    keep(tmp_path, range(1), loss=math.nan, gradient_norm=math.inf, low=-math.inf)
    (line,) = (tmp_path / METRICS).read_text().splitlines()
    json.loads(line, parse_constant=refuse)
    (row,) = read_metrics(tmp_path / METRICS)
    assert math.isnan(row["loss"]) and row["gradient_norm"] == math.inf and row["low"] == -math.inf
    assert row["entropy"] == HEALTHY["entropy"]
    assert capfd.readouterr().err.count("NaN") == 0  # TensorBoard's writer would complain, every time


def test_tensorboard_has_every_number_and_forgets_what_a_resume_repeats(tmp_path: Path) -> None:
    keep(tmp_path, range(3))
    keep(tmp_path, range(2, 4), first_step=2)
    result = events(tmp_path)
    scalars = [(e.step, {v.tag: v.simple_value for v in e.summary.value}) for e in result if e.HasField("summary")]
    assert [step for step, _ in scalars] == [0, 1, 2, 2, 3]
    for step, values in scalars:
        assert {name: values[name] for name in HEALTHY} == HEALTHY
        assert values["step_of"] == step and values["epoch"] == pytest.approx(step / 10)
    starts = [event.step for event in result if event.session_log.status == SessionLog.START]
    assert starts == [0, 2]


def test_speed_and_waiting_are_those_of_the_last_steps(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "WINDOW", 2)
    monkeypatch.setattr(journal, "utilization", lambda flops, kind, count: flops)
    with Journal(tmp_path, 100, 0, 48, 1e6) as kept:
        for step, (seconds, waited) in enumerate([(9, 9), (10, 4), (2, 1), (2, 0)]):
            clock[0] += seconds
            kept.record(step, 0.0, HEALTHY, waited)
    rows = read_metrics(tmp_path / METRICS)
    assert "images_per_second" not in rows[0] and "waiting" not in rows[0]
    assert [row["images_per_second"] for row in rows[1:]] == [48 / 10, 2 * 48 / 12, 2 * 48 / 4]
    assert [row["waiting"] for row in rows[1:]] == [4 / 10, 5 / 12, 1 / 4]
    assert [row["mfu"] for row in rows[1:]] == [1e6 / 10, 2e6 / 12, 2e6 / 4]


def test_utilization_is_left_out_where_the_peak_is_unknown(tmp_path: Path) -> None:
    with Journal(tmp_path, 100, 0, 48, 1e6) as kept:
        for step in range(2):
            kept.record(step, 0.0, HEALTHY, 0.0)
    row = read_metrics(tmp_path / METRICS)[-1]
    assert "images_per_second" in row and "mfu" not in row


def test_peaks_by_the_names_that_jax_gives() -> None:
    """Golden figures of the data sheets, and names that look like another's."""
    known = {
        "Tesla V100-SXM2-16GB": 125,
        "Tesla V100-PCIE-32GB": 112,
        "Tesla T4": 65,
        "NVIDIA A100-SXM4-80GB": 312,
        "A100-PCIE-40GB": 312,
        "NVIDIA A100 80GB PCIe": 312,
        "NVIDIA A10G": 70,
        "NVIDIA L4": 121,
        "NVIDIA L40S": 362,
        "NVIDIA H100 80GB HBM3": 989,
        "NVIDIA H100 PCIe": 756,
        "NVIDIA H200": 989,
        "NVIDIA B200": 2250,
        "TPU v2": 23,
        "TPU v3": 61.5,
        "TPU v4": 275,
        "TPU v5 lite": 197,
        "TPU v5e": 197,
        "TPU v5": 459,
        "TPU v5p": 459,
        "TPU v6 lite": 918,
        "TPU v6e": 918,
    }
    assert {name: peak_flops(name) for name in known} == {name: peak * 1e12 for name, peak in known.items()}
    unknown = ["cpu", "", "NVIDIA L40", "NVIDIA A10", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA H100", "TPU v4 lite"]
    assert [peak_flops(name) for name in [*unknown, "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "TPU v7x"]] == [None] * 9
    for name in known:
        assert sum(bool(devices.re.fullmatch(pattern, name)) for pattern, _ in devices.SHEETS) == 1
    assert utilization(312e12, "NVIDIA A100-SXM4-40GB", 4) == 0.25
    assert utilization(1e12, "cpu", 1) is None


@pytest.mark.parametrize("name", ["entropy", "feature_std", "center_norm"])
def test_a_collapse_is_told_once_it_can_be_one(name: str) -> None:
    assert watch(SETTLED, HEALTHY) == {}
    assert watch(SETTLED - 1, HEALTHY | {name: 0.0}) == {}
    (message,) = watch(SETTLED, HEALTHY | {name: 1e-5}).items()
    assert message[0] == name and message[1].startswith(f"{name} is 1e-05, below ")
    assert watch(SETTLED, {"loss": 1.0}) == {}


def test_floors_lie_below_what_health_allows() -> None:
    """The reasons that stand beside the constants, as numbers."""
    rng = np.random.default_rng(0)

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    sharp = np.append(np.full(65535, 1e-3 / 65535), 0.999)
    assert -(sharp * np.log(sharp)).sum() > journal.ENTROPY_FLOOR
    equal = unit(1 + 2**-9 * rng.uniform(-1, 1, (256, 512)))
    assert 0.001 < equal.std(0).mean() * np.sqrt(512) < journal.FEATURE_FLOOR / 2
    prototypes, center = unit(rng.standard_normal((1024, 256))), np.zeros(1024)
    for _ in range(40):  # steps of 960 images in two views
        center = 0.9 * center + 0.1 * prototypes @ unit(rng.standard_normal((1920, 256))).mean(axis=0)
    assert 5 * journal.CENTER_FLOOR < np.linalg.norm(center) < 0.02


def test_warnings_come_once_a_run_on_stderr_and_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal(tmp_path, 1000, 0, 48, None) as kept:
        for step in range(SETTLED - 2, SETTLED + 4):
            later = {"entropy": 0.0} if step > SETTLED + 1 else {}
            kept.record(step, 0.0, {**HEALTHY, "feature_std": 1e-4, **later}, 0.0)
    message = {row["step"]: row["warning"] for row in read_metrics(tmp_path / METRICS) if "warning" in row}
    assert list(message) == [SETTLED, SETTLED + 2]
    assert "feature_std is 0.0001" in message[SETTLED] and "entropy is 0" in message[SETTLED + 2]
    error = capsys.readouterr().err.splitlines()
    assert [line for line in error if " is " in line] == [f"step {step}: {text}" for step, text in message.items()]


def test_without_a_terminal_there_is_a_line_a_minute(
    tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Journal(tmp_path, 100, 20, 48, None) as kept:
        for step in range(20, 30):
            clock[0] += 20
            kept.record(step, step / 10, HEALTHY, 5.0)
    out, error = capsys.readouterr()
    assert out == ""
    assert error.splitlines() == [
        "step 21/100  loss 9.000  epoch 2.00  entropy 6.00",
        "step 24/100  0:25:20 left  loss 9.000  2 images/s  waiting 25%  epoch 2.30  entropy 6.00",
        "step 27/100  0:24:20 left  loss 9.000  2 images/s  waiting 25%  epoch 2.60  entropy 6.00",
        "step 30/100  0:23:20 left  loss 9.000  2 images/s  waiting 25%  epoch 2.90  entropy 6.00",
    ]


def test_a_terminal_has_a_bar_and_warnings_stand_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Journal(tmp_path, 1000, SETTLED, 48, None) as kept:
        for step in range(SETTLED, SETTLED + 3):
            kept.record(step, 1.5, {**HEALTHY, "entropy": 0.0}, 0.0)
    error = capsys.readouterr().err
    assert " 100/1000" in error.split("loss")[0]  # a resumed run's bar starts where it had been
    assert "103/1000" in error and "loss 9.000" in error and "epoch 1.50" in error
    assert error.count("step 100: entropy is 0") == 1 and "step 101" not in error


def test_a_profile_covers_its_steps_and_leaves_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    step = itertools.count(5)
    start, stop = jax.profiler.start_trace, jax.profiler.stop_trace
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: (calls.append(number), start(folder)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: (calls.append(number), stop()))
    with profile(tmp_path, 5, 2) as finished:
        for number in itertools.islice(step, 8):
            jnp.add(number, 1).block_until_ready()
            finished(number)
    assert calls == [5 + WARM_UP - 1, 5 + WARM_UP + 1]
    (trace,) = tmp_path.rglob("*.xplane.pb")
    assert trace.stat().st_size > 0 and TENSORBOARD in trace.parts


def test_a_profile_ends_with_its_run_and_may_be_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    for steps in (0, 9):
        with profile(tmp_path, 0, steps) as finished:
            for number in range(5):
                finished(number)
    assert calls == ["start", "stop"]
