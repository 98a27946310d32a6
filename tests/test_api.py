"""What `import cion_jax` offers: a few names, imported late, each with an example that runs."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import cion_jax
from cion_jax.cli import main

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "api.md").read_text()


def test_the_import_alone_wakes_nothing() -> None:
    heavy = ("jax", "flax", "numpy", "etils", "cion_jax.config")
    check = f"import sys, cion_jax; dir(cion_jax); sys.exit(any(name in sys.modules for name in {heavy}))"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_every_name_is_there_whatever_was_imported_before() -> None:
    """A name that a module of ours has, too, would be replaced by it: `cion_jax.denoise` is a package."""
    for _ in range(2):
        assert all(callable(getattr(cion_jax, name)) for name in cion_jax.__all__)
    assert {*cion_jax.__all__} <= {*dir(cion_jax)}
    modules = {path.stem for path in Path(cion_jax.__file__).parent.iterdir()}
    assert not modules & {*cion_jax.__all__}
    with pytest.raises(AttributeError, match="'cion_jax' has no attribute 'backbones'"):
        cion_jax.backbones  # noqa: B018


def test_type_checkers_read_the_same_names() -> None:
    tree = ast.parse((ROOT / "cion_jax" / "__init__.py").read_text())
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    read = {}
    for node in guarded.body:
        assert isinstance(node, ast.ImportFrom) and node.module
        for name in node.names:
            read[name.asname or name.name] = getattr(import_module(node.module), name.name)
    assert read == {name: getattr(cion_jax, name) for name in cion_jax.__all__}


def test_the_page_names_and_uses_all_of_it() -> None:
    table = PAGE.partition("## Records")[0]
    examples = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    for name in cion_jax.__all__:
        assert f"`{name}`" in table and re.search(rf"cion_jax\.{name}\b", examples), name


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"^    cion (data synth .*)$", PAGE, re.MULTILINE)
    few = ["--identities=6", "--videos=4", "--cameras=2", "--test-identities=2", "--distractors=3", "--workers=1"]
    assert main([*command.split(), *few]) == 0
    scope: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(example, "docs/api.md", "exec"), scope)
    assert "did you mean resnet50 or " in capsys.readouterr().out
