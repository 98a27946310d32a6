"""What is installed, for which versions, and that the places which say so agree."""

import re
from configparser import ConfigParser
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import cion_jax

ROOT = Path(__file__).parent.parent
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def lines(section: str, option: str) -> list[str]:
    return [line for line in SETUP[section][option].splitlines() if line and not line.startswith("#")]


def test_only_the_two_packages_are_installed_with_their_types() -> None:
    """A wheel with a top-level package `experiments` would hide everybody's own; .ci/run looks into a real one."""
    patterns = lines("options.packages.find", "include")
    installed = {
        path.parent.relative_to(ROOT).parts[0]
        for path in ROOT.glob("*/__init__.py")
        if any(fnmatchcase(path.parent.name, pattern) for pattern in patterns)
    }
    assert installed == {"cion_jax", "tfrecords_tools"}
    for package in installed:
        assert (ROOT / package / "py.typed").is_file()
        assert lines("options.package_data", package) == ["py.typed"]


def test_every_folder_of_modules_is_a_package() -> None:
    """`find:` leaves out a folder without __init__.py, and so would the wheel."""
    for package in ("cion_jax", "tfrecords_tools"):
        folders = {path.parent for path in (ROOT / package).rglob("*.py")}
        assert all((folder / "__init__.py").is_file() for folder in folders)


def test_the_extras_ask_for_the_same_jax() -> None:
    (range_,) = {
        line.partition(">=")[2]
        for option in ("cuda13", "tpu")
        for line in lines("options.extras_require", option)
        if line.startswith("jax[")
    }
    assert f"jax>={range_}" in lines("options", "install_requires")


def test_the_oldest_python_is_the_one_that_is_checked() -> None:
    versions = re.findall(r":: Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])
    assert versions == sorted(versions, key=lambda version: int(version[2:]))
    assert SETUP["options"]["python_requires"] == f">={versions[0]}"
    tools = (ROOT / "pyproject.toml").read_text()
    assert f'python_version = "{versions[0]}"' in tools and f'"py{versions[0].replace(".", "")}"' in tools


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {cion_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_newest_section_of_the_changes_is_of_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[([\d.]+)\] - (?:\d{4}-\d\d-\d\d|unreleased)$", text, re.MULTILINE)
    assert versions[0] == cion_jax.__version__ and text.count("\n## ") == len(versions)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert {*re.findall(r"^### (.*)$", text, re.MULTILINE)} <= kinds


def test_what_the_image_installs_are_extras() -> None:
    text = (ROOT / "Dockerfile").read_text()
    extras = {extra for names in re.findall(r"EXTRAS=([\w,]+)", text) for extra in names.split(",")}
    assert "cuda13" in extras and extras <= {*SETUP["options.extras_require"]}


@pytest.mark.parametrize("text", ["setup.cfg", ".ci/run", "README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/api.md"])
def test_commands_name_modules_that_are_there(text: str) -> None:
    for module in re.findall(r"python -m ((?:experiments|cion_jax|tfrecords_tools)[\w.]*)", (ROOT / text).read_text()):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), module
