"""What ``mivolo-lite`` answers at once, and its other spelling ``python -m mivolo_lite``."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import mivolo_lite
from mivolo_lite.cli import main
from mivolo_lite.cli.entry import COMMANDS
from mivolo_lite.cli.names import METHOD_NAMES, MODEL_NAMES
from mivolo_lite.config import help_text
from mivolo_lite.methods import METHODS
from mivolo_lite.models import MODELS
from mivolo_lite.package_files import package_configs, package_folder

REPOSITORY = Path(__file__).parents[1]


def python(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, check=True)


def test_the_names_that_help_lists_are_those_of_the_registries():
    assert MODEL_NAMES == tuple(MODELS) and METHOD_NAMES == tuple(METHODS)


def test_help_lists_every_command_with_a_line_and_every_model_and_method(capsys):
    main(["--help"])
    text = capsys.readouterr().out
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith("  ")}
    assert {name for name in COMMANDS if len(lines[name].split()) >= 3} == set(COMMANDS)
    assert set(text.replace(",", " ").split()) >= {*MODELS, *METHODS}
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("unbuffered, code", [(["-u"], 141), ([], 0)])
def test_a_reader_that_has_read_enough_is_no_error(unbuffered, code):
    reads, writes = os.pipe()
    os.close(reads)
    words = [sys.executable, *unbuffered, "-m", "mivolo_lite", "--help"]
    env = os.environ | {"PYTHONUNBUFFERED": ""}
    with open(writes, "wb") as gone:
        done = subprocess.run(words, stdout=gone, stderr=subprocess.PIPE, timeout=300, env=env)
    assert (done.returncode, done.stderr) == (code, b"")


def seconds_of_children() -> float:
    """CPU time of the processes that ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_import_no_torch_and_take_less_than_a_second(word):
    script = f"import sys; from mivolo_lite.cli import main; main(['{word}']); print('torch' in sys.modules)"
    seconds = []
    for _ in range(3):  # other tests run meanwhile
        start = seconds_of_children()
        assert python("-c", script).stdout.splitlines()[-1] == "False"
        seconds.append(seconds_of_children() - start)
    assert min(seconds) < 1


def test_torchs_launcher_ends_its_report_with_the_line(monkeypatch, tmp_path, capsys):
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit):
        main(["train", "--config", "missing.yaml"])
    line = capsys.readouterr().err.strip()
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(tmp_path / "error.json"))
    assert line.startswith("mivolo-lite: ") and line in str(ChildFailedError("train.py", {0: failure}))


TRAINING = {"train", "find-lr"}
"""Commands whose options stand next to the modules of torch that they build."""


def test_the_help_of_every_other_command_imports_no_torch():
    script = f"""
        import sys
        from mivolo_lite.cli import main
        for command in {sorted(set(COMMANDS) - TRAINING)}:
            try:
                main([command, "--help"])
            except SystemExit as end:
                assert end.code == 0, command
            assert "torch" not in sys.modules, command
    """
    python("-c", dedent(script))


@pytest.mark.parametrize("words", [["-m", "mivolo_lite"], ["-c", "from mivolo_lite.cli import main; main()"]])
def test_the_version_is_the_packages(words):
    assert python(*words, "--version").stdout == f"mivolo-lite {mivolo_lite.__version__}\n"


def test_the_packages_configurations_are_those_of_the_repository():
    assert package_folder("configs") == REPOSITORY / "configs"  # of a clone
    assert {"quickstart", "utkface", "methods/coral"} <= set(package_configs())


def test_a_configuration_of_the_package_is_read_by_its_name(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["train", "--config", "pkg:methods/coral", "--help"])  # its base lies next to it it
    assert "coral" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["train", "--config", "pkg:utk"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and "pkg:utk" in error and "utkface" in error


def test_the_help_of_train_says_what_train_takes():
    text = " ".join(help_text([]).split())
    assert "--data.augment OPTIONS a name, or options as in" in text and "(type: yes or no, default: no)" in text
    assert not any(word in text for word in ("null)", "Literal", "type: str", "CONFIG Path", ".help", "+ ["))
    assert not any(word in text for word in ("{true", "default: True", "default: False", "``"))


def test_the_help_of_a_source_has_no_marks_of_a_docstring(capsys):
    with pytest.raises(SystemExit):
        main(["pack", "peta", "--help"])
    said = capsys.readouterr().out
    assert "`Label.txt`" in said and "``" not in said


def test_a_section_of_a_command_takes_options(capsys):
    for words, answer in (
        (["--help"], "--cache OPTIONS"),
        (["--cache", "/etc/hostname"], "give options as in '{option"),
    ):
        with pytest.raises(SystemExit):
            main(["evaluate", "--checkpoint", "default", "--data", "x", "--out", "y", *words])
        said = "".join(capsys.readouterr())
        assert answer in said and "CONFIG" not in said


def test_launch_files_are_copied_and_never_over_others(tmp_path, capsys):
    main(["launch-files", f"{tmp_path}/launch"])
    assert f"{tmp_path}/launch" in capsys.readouterr().out
    copied = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    originals = [path for path in (REPOSITORY / "launch").rglob("*") if "__pycache__" not in path.parts]
    assert copied == {path.relative_to(REPOSITORY): path.read_bytes() for path in originals if path.is_file()}
    (tmp_path / "launch" / "accelerate" / "ddp.yaml").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        main(["launch-files", f"{tmp_path}/launch"])
    assert stop.value.code == 2 and "there already" in capsys.readouterr().err
    assert (tmp_path / "launch" / "accelerate" / "ddp.yaml").read_text() == "mine"


@pytest.mark.parametrize("module", ["typing", "mivolo_lite.cli.entry", "mivolo_lite.cli.summary"])
def test_ctrl_c_in_an_import_is_one_line(module):
    script = f"""if True:
        import sys
        class Interrupted:
            def find_spec(name, *_):
                if name == "{module}":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Interrupted)
        sys.modules.pop("typing", None)
        from mivolo_lite.cli import main
        main(["summary", "nowhere"])"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "mivolo-lite: interrupted\n")
