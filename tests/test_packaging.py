"""Wheel and sdist hold what they should, and the wheel works where the source tree is not.

The wheel is installed in an environment with no other package than the one core dependency, which
is copied from here: nothing is downloaded, and nothing optional can help by accident.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import lark
import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str | Path, cwd: Path) -> str:
    """What the command prints. PYTHONPATH is left out: it could lead back to the source tree."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The paths of the sdist and of the wheel, both built from the source tree."""
    folder = tmp_path_factory.mktemp("built")
    options = ["--no-isolation", "--sdist", "--wheel", "--outdir", str(folder)]
    run(sys.executable, "-m", "build", *options, ROOT, cwd=folder)
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


class Environment:
    """A virtual environment with the wheel and lark in it, and nothing else, not even pip."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder, with_pip=False)
        self.elsewhere = folder
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.bin / "python"
        self.site_packages = Path(
            self.run(self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
        )
        shutil.copytree(
            Path(lark.__file__).parent,
            self.site_packages / "lark",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python"]
        install = ["install", "--quiet", "--no-index", "--no-deps"]
        run(*pip, self.python, *install, wheel, cwd=folder)

    def run(self, *command: str | Path) -> str:
        return run(*command, cwd=self.elsewhere).rstrip("\n")


@pytest.fixture(scope="module")
def environment(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment"), built[1])


def test_the_wheel_holds_the_package_its_grammar_and_its_types(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
    assert {"exprjit/__init__.py", "exprjit/grammar/expr.lark", "exprjit/py.typed"} <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"exprjit"}


def test_the_metadata_says_what_is_needed(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        (path,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(wheel.read(path).decode())
    requirements = metadata.get_all("Requires-Dist", [])
    core = [requirement for requirement in requirements if "extra ==" not in requirement]
    assert core == ["lark>=1.2"]
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "MIT"


def test_the_sdist_holds_what_a_packager_needs(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert names >= {
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "pyproject.toml",
        "exprjit/__init__.py",
        "grammar/expr.lark",
        "tests/conftest.py",
        "examples/bitmap_search.py",
        "benchmarks/call.py",
    }


def test_the_installed_package_compiles_and_runs(environment: Environment) -> None:
    code = "import exprjit; assert exprjit.compile('x + 4')(2) == 6; print(exprjit.__file__)"
    package = Path(environment.run(environment.python, "-c", code)).parent
    assert package == environment.site_packages / "exprjit"
    assert (package / "grammar" / "expr.lark").is_file()
    assert (package / "py.typed").is_file()


def test_the_installed_version_is_the_one_in_the_source(environment: Environment) -> None:
    code = (
        "import exprjit, importlib.metadata as m; print(exprjit.__version__, m.version('exprjit'))"
    )
    ours, metadata = environment.run(environment.python, "-c", code).split()
    assert ours == metadata


def test_the_installed_command_answers(environment: Environment) -> None:
    assert environment.run(environment.bin / "exprjit", "x + 4", "x=2") == "6"
