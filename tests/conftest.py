"""Fixtures that several tests share: datasets that are written once and never changed."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from cion_jax.config import Writing
from cion_jax.data.writer import write_dataset
from compiling import FAST
from sources import Blocks

# Read when JAX starts.
if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST}".strip()
# What they compare in float32 is float32 on devices too that would multiply in fewer bits.
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
# Nor does a test find programs that one before it has left on this machine.
os.environ["JAX_COMPILATION_CACHE_DIR"] = ""
# Processes that tests start can import what tests can.
_TESTS = Path(__file__).parent
os.environ["PYTHONPATH"] = os.pathsep.join(
    str(path)
    for path in (_TESTS, _TESTS / "support", _TESTS.parent, os.environ.get("PYTHONPATH", ""))
    if str(path) != "."
)
# No test asserts a time, however slow the machine is.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


class FailuresAtOnce:
    """Shows a failure when it happens: of tests that are cut off there is no summary."""

    def __init__(self, terminal: pytest.TerminalReporter):
        self.terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.terminal.write_line(f"\n{report.nodeid}\n{report.longreprtext}")


@pytest.hookimpl(trylast=True)  # after the terminal has its reporter
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:  # processes that run tests for another have none
        config.pluginmanager.register(FailuresAtOnce(terminal))


@pytest.fixture(scope="session")
def blocks() -> Blocks:
    return Blocks(200)


@pytest.fixture(scope="session")
def dataset(blocks: Blocks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 training images in 5 shards, 20 query images in one. Not to be written to."""
    folder = tmp_path_factory.mktemp("data") / "blocks"
    write_dataset(folder, {"train": blocks, "query": Blocks(20, seed=1)}, Writing(images_per_shard=40, workers=1))
    return folder


@pytest.fixture
def own_dataset(dataset: Path, tmp_path: Path) -> Path:
    """A copy of it to do harm to."""
    return Path(shutil.copytree(dataset, tmp_path / "own"))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny backbone in the zoo, and one compiled step for all runs in this process whose programs are equal."""
    from tiny_pretrain import stand_in  # after the environment is set: it starts JAX

    stand_in(monkeypatch)


@pytest.fixture(scope="module")
def small_in_zoo() -> Iterator[None]:
    """The backbone of `finished_run` in the zoo."""
    from cion_jax.models.zoo import ZOO
    from finished_run import FAMILY

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ZOO, "small", FAMILY)
        yield


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where processes that tests start keep what they compile, for each other."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session")
def process(dataset: Path, cache: Path) -> Any:
    """Runs `cion pretrain` in processes of their own."""
    from tiny_pretrain import Process

    return Process(dataset, cache)


@pytest.fixture(scope="session")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Not to be written to."""
    from tiny_pretrain import cion, stand_in

    out = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        assert cion(out, dataset) == 0
    return out
