"""Tests the package with other versions of Python and torch: ``python benchmarks/versions.py PYTHON=TORCH ...``.

Each argument, such as python3.11=2.11.0, gets a separate virtual environment (6 GB, removed afterwards), one after
another, with the newest releases of everything else that pip finds; without =TORCH, of torch too. Prints a row of
results/versions.md for each.
"""

import argparse
import json
import re
import subprocess
import tempfile
from datetime import date
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TOOLS = ("pytest", "pytest-timeout", "hypothesis", "coral-pytorch", "setuptools>=77")
QUICK = (
    "tests/test_options.py",
    "tests/methods/test_every_method.py",
    "tests/models/test_every_model.py",
    "tests/loading/test_order.py",
    "tests/shards/test_index.py",
    "tests/training/test_step.py",
)
PACKAGE = "tests/test_package.py"
"""Installs the wheel and trains with two processes."""

HEAD = """| Python | torch | torchvision | accelerate | timm | numpy | quick tests | wheel and two processes | date |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def run(*command: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(list(map(str, command)), cwd=REPOSITORY, capture_output=True, text=True)


def outcome(done: subprocess.CompletedProcess) -> str:
    """The counts in pytest's last line, or the exit code if it has none."""
    counts = re.findall(r"\d+ (?:passed|failed|skipped|errors?)", done.stdout[-500:])
    return ", ".join(counts) or f"exit code {done.returncode}"


def row(python: str, torch: str) -> str:
    """Install and test the versions, and return the row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "bin" / "python"
        subprocess.run([python, "-m", "venv", folder], check=True)
        install = run(
            own, "-m", "pip", "install", "--quiet", f"torch{torch and f'=={torch}'}", "--editable", ".", *TOOLS
        )
        version = run(own, "-c", "import platform; print(platform.python_version())").stdout.strip()
        if install.returncode:
            return f"| {version} | {torch} | cannot be installed: {install.stderr.strip().splitlines()[-1]} |"
        listed = json.loads(run(own, "-m", "pip", "list", "--format", "json").stdout)
        versions = {package["name"]: package["version"] for package in listed}
        quick = run(own, "-m", "pytest", "-q", "-m", "not slow", *QUICK)
        package = run(own, "-m", "pytest", "-q", PACKAGE)
    for done in (quick, package):
        if done.returncode:
            print(done.stdout[-3000:])
    names = [versions.get(name, "") for name in ("torch", "torchvision", "accelerate", "timm", "numpy")]
    return "| " + " | ".join([version, *names, outcome(quick), outcome(package), f"{date.today()}"]) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="+", metavar="PYTHON[=TORCH]")
    print(HEAD)
    for text in parser.parse_args().versions:
        python, _, torch = text.partition("=")
        print(row(python, torch), flush=True)
