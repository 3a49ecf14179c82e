"""README.md and docs/ send nobody to what is not there, and every command in them runs, on tiny data."""

import json
import re
import shutil
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from accelerate.commands.launch import launch_command_parser
from PIL import Image
from torch import nn
from torch.distributed.run import get_args_parser as torchrun_parser

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.cli import main
from mivolo_lite.config import read_run_config
from mivolo_lite.estimator import Card, Estimator
from mivolo_lite.evaluation.predictions import read_csv, write_csv
from mivolo_lite.evaluation.summary import summarise
from mivolo_lite.images.packed import Images
from mivolo_lite.inference import detect
from mivolo_lite.inference.frames import VideoWriter
from mivolo_lite.methods import METHODS
from mivolo_lite.methods.interface import AgeSpan
from mivolo_lite.models import MODELS
from mivolo_lite.package_files import package_config
from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources import SOURCES
from mivolo_lite.reporting.plots import Plot
from mivolo_lite.shards.sample import Labels, Sample
from mivolo_lite.shards.scan import index_shards
from tests.documents import PAGES, REPOSITORY, blocks, commands, links
from tests.evaluation.simulated import people
from tests.forked import popen_forked
from tests.inference.scenes import RedSquares, photo
from tests.models.tiny import SIDE, TinyMivolo
from tests.packing import layouts
from tests.shards.tiny_shards import noise_jpeg, write_shard

README = (REPOSITORY / "README.md").read_text()
PHOTOS = 100
GROUPS = ("White", "Black", "Asian", "Indian", "Others")

NOT_RUN = {
    "make": "builds an environment of its own; its targets are looked up in the Makefile",
    "pip": "installs; tests/test_package.py installs the wheel",
    ".": "activates an environment",
    "python3": "makes an environment",
    "sbatch": "needs a cluster; tests/slurm runs both files on a real SLURM",
    "docker": "needs a daemon",
    "apptainer": "needs a container of the cluster",
    "git": "needs the network",
    "curl": "asks a server, as tests/inference/test_serve.py does",
}
"""Programs that are not run here, with the reason. What they are given is looked at instead."""

PUBLISHED = {"Adience": layouts.adience, "appa-real-release": layouts.appa_real, "CelebA": layouts.celeba,
             "IMDB-clean": layouts.imdb_clean, "databases": layouts.paplhjak}  # fmt: skip
"""Folders that the pages name, and what makes the data set's layout in them."""

COMMANDS = commands()
RUN_HERE = {name: words for name, words in COMMANDS.items() if words[0] not in NOT_RUN}

SMALL = {"data.image_size": SIDE, "data.workers": 0, "data.train": "shards/train", "data.val": "shards/val",
         "optim.epochs": 1, "optim.global_batch": 16, "optim.dro.fewest": 2, "model.pretrained": "false"}  # fmt: skip
BACKBONES = {"single": ["backbone"], "multilevel": ["backbone"], "dual": ["face", "body"]}
"""What every training here is given besides: 48 samples at 48 px, a backbone of a few thousand weights."""
SHORT = ["--data.train", "shards/train", "--data.val", "shards/val", "--data.workers", "0", "--optim.epochs", "1",
         "--optim.global_batch", "16"]  # fmt: skip
"""The same, of those that start from the package's checkpoint, which has its own backbone and size."""


def noise_sample(number: int) -> Sample:
    others = {"identity": f"person {number // 2}", "fold": number // 2 % 2}
    labels = Labels((number % 70,) * 2, "MF"[number % 2], GROUPS[number % 5], others)
    return Sample(f"sample{number:03d}", noise_jpeg(number, SIDE), noise_jpeg(1000 + number, SIDE), labels)


@pytest.fixture(scope="module")
def supplies(tmp_path_factory):
    """What the commands are given, by what the pages call it: photos, shards, a trained and evaluated run, weights."""
    folder = tmp_path_factory.mktemp("supplies")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "mivolo_d1_224", TinyMivolo)
        patch.chdir(folder)
        for name in ("UTKFace", "IMDB", "FairFace", "shards/train", "shards/val"):
            Path(name).mkdir(parents=True)
        for number in range(PHOTOS):
            face, scene = noise_jpeg(number, SIDE), noise_jpeg(number, 120)
            Path("UTKFace", f"{number}_{number % 2}_{number % 5}_1.jpg").write_bytes(face)
            Path("IMDB", f"{number}.jpg").write_bytes(scene)
            Path("FairFace", f"{number}.jpg").write_bytes(scene)
            person = Path("FACES", f"person{number // 2}")
            person.mkdir(parents=True, exist_ok=True)
            (person / f"{number}.jpg").write_bytes(face)
        heads = "img_name,age,gender,face_x0,face_y0,face_x1,face_y1,person_x0,person_y0,person_x1,person_y1"
        boxes = [f"{number}.jpg,{number},{'MF'[number % 2]},40,10,80,50,10,0,110,120" for number in range(PHOTOS)]
        Path("imdb_train.csv").write_text("\n".join([heads, *boxes]))
        rows = [f"{number}.jpg,20-29,{('Male', 'Female')[number % 2]},White" for number in range(PHOTOS)]
        Path("fairface_train.csv").write_text("\n".join(["file,age,gender,race", *rows]))
        rows = [f"person{number // 2}/{number}.jpg,{number % 70},{'MF'[number % 2]}" for number in range(PHOTOS)]
        Path("faces.csv").write_text("\n".join(["path,age,gender", *rows]))
        for name, build in PUBLISHED.items():
            build(Path(name))
        shutil.copyfile("databases/AgeDB_aligned.json", "AgeDB_aligned.json")
        Path("leave_out.txt").write_text("sample000\n")
        Path("face.jpg").write_bytes(noise_jpeg(0, SIDE))
        Path("photo.jpg").write_bytes(noise_jpeg(0, 120))
        Path("photos").mkdir()
        Path("photos", "a.jpg").write_bytes(noise_jpeg(1, 120))
        for number in range(80):
            image = Image.fromarray(photo((20, 10, 60), width=100, height=80, seed=number))
            image.save(Path("photos", f"{number}.jpg"))
        rows = [f"{number}.jpg,{number}" for number in range(80)]
        Path("labels.csv").write_text("\n".join(["path,age", *rows]))
        Path("faces").mkdir()
        heads = "path,age,face_x0,face_y0,face_x1,face_y1"
        Path("faces", "labels.csv").write_text("\n".join([heads, *(f"{row},20,10,80,70" for row in rows)]))
        Path("boxes.csv").write_text("file,face_x0,face_y0,face_x1,face_y1\na.jpg,10,10,90,90\n")
        video = VideoWriter(Path("walk.mp4"), Fraction(25))
        video.write(np.zeros((48, 64, 3), np.uint8))
        video.close()
        write_shard(Path("shards/train/0.tar"), [noise_sample(number) for number in range(48)])
        write_shard(Path("shards/val/0.tar"), [noise_sample(number) for number in range(48, 80)])
        for other in ("theirs", "shards/all"):
            shutil.copytree("shards/val", other)
        for split in ("train", "val", "all"):
            index_shards(Path("shards", split))
        main(["train", "--config", f"{REPOSITORY}/configs/quickstart.yaml", "--run", "run", *small("dual")])
        main(["evaluate", "--checkpoint", "run", "--data", "shards/val", "--out", "run/evaluation", "--report", "no"])
        span, method = {"min_age": 1, "max_age": 95}, {"name": "regression"}
        for name, looks_at in (("mivolo_d1", "both"), ("mivolo_d1_face", "face")):
            Estimator(Card({"name": "mivolo_d1_224", "input": looks_at}, method, span, SIDE)).save(Path(name, "best"))
        Estimator(Card({"name": "mivolo_d1_112", "input": "face"}, method, span, 112)).save("mivolo_d1_112")
        main(["convert", "mivolo_d1_112", "model.pth.tar"])
    return folder


def small(model: str) -> list[str]:
    backbones = {f"model.{option}": "test_resnet" for option in BACKBONES.get(model, ())}
    return [word for name, value in (SMALL | backbones).items() for word in (f"--{name}", str(value))]


PLOTS_OF_COMMANDS: dict[tuple[str, str], bytes] = {}
"""Every plot in its formats, by its name, as the first command that has it plots it. Later ones get the same: plotting
is half of the time of the commands that write reports."""


@pytest.fixture
def plotted_once(monkeypatch):
    plot_bytes = Plot._bytes

    def once(plot, form, **options):
        if (plot.name, form) not in PLOTS_OF_COMMANDS:
            PLOTS_OF_COMMANDS[plot.name, form] = plot_bytes(plot, form, **options)
        return PLOTS_OF_COMMANDS[plot.name, form]

    monkeypatch.setattr(Plot, "_bytes", once)


@pytest.fixture
def workplace(supplies, tmp_path, monkeypatch, plotted_once):
    """A new folder to work in, as a clone: its configurations and launch files, and shards."""
    for name in ("configs", "launch"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "shards").symlink_to(supplies / "shards")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(MODELS, "mivolo_d1_224", TinyMivolo)
    monkeypatch.setattr("mivolo_lite.distributed.preemption.subprocess", SimpleNamespace(Popen=popen_forked))
    return tmp_path


def supply(path: Path, supplies: Path, command: str) -> None:
    """Put there what a page's name of an input stands for, if it is such a name."""
    kind, *rest = path.parts
    if command == "convert" and kind == "runs":
        source = Path("mivolo_d1_112")  # only what is published can be converted
    elif kind == "runs":
        source = Path(rest[0] if (supplies / rest[0]).is_dir() else "run", *rest[1:])
    elif kind == "data":
        source = Path("theirs" if rest == ["theirs"] else "shards", *rest[1:])
    else:
        source = Path("mivolo_d1", "best") if kind == "official" else path
    if (supplies / source).is_dir():
        shutil.copytree(supplies / source, path, dirs_exist_ok=True)
    elif (supplies / source).is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(supplies / source, path)


def inputs(words: list[str]) -> list[Path]:
    """The words of a command that may be files which it reads."""
    outputs = ("--out", "--run", "--fix")
    named = [word for before, word in zip(["", *words], words, strict=False) if before not in outputs]
    if words[0] == "convert":
        named = named[:-1]
    return [Path(word) for word in named if not word.startswith(("-", "/")) and not Path(word).exists()]


def as_arguments(words: list[str]) -> list[str]:
    """What a command gives to ``mivolo-lite``. Launchers' own options are parsed, and their processes are one, here."""
    if words[0] == "mivolo-lite":
        return words[1:]
    if words[:3] == ["python", "-m", "mivolo_lite"]:
        return words[3:]
    if words[:2] == ["accelerate", "launch"]:
        launch = launch_command_parser().parse_args(words[2:])
        assert launch.config_file is None or Path(launch.config_file).is_file()
        script, rest = launch.training_script, launch.training_script_args
    elif words[0] == "torchrun":
        launch = torchrun_parser().parse_args(words[1:])
        script, rest = launch.training_script, launch.training_script_args
    else:
        assert words[0] == "python", f"how should {words[0]} be run?"
        script, rest = words[1], words[2:]
    return {"train.py": ["train", *rest], "shards/pack.py": ["pack", *rest], "mivolo_lite": rest}[script]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN_HERE)
def test_every_command_runs(name, workplace, supplies):
    words = as_arguments(RUN_HERE[name])
    for path in inputs(words):
        supply(path, supplies, words[0])
    if words[0] == "launch-files":
        Path("launch").unlink()
    if words[0] == "train" and "--help" not in words:
        config = read_run_config(words[1:])  # as it stands
        words += SHORT if config.init_from == "default" else small(config.model.name)
        main(words)
        assert (Path(config.run) / "best" / "model.safetensors").is_file()
        return
    if words[0] == "find-lr":
        words += [*small("single"), "--steps", "10"]
    if words[0] in ("seeds", "crossval"):
        words = ["2" if word.isdigit() else word for word in words] + small("single")
    if words[0] == "crossval":  # whose folds are validated on
        option = words.index("--data.val")
        del words[option : option + 2]
    if words[0] == "pack":
        words = [str(min(int(word), 30)) if word.isdigit() else word for word in words] + ["--workers", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uvicorn.Server.run", lambda server, sockets: None)  # it would serve until it is stopped
        patch.setattr(detect, "open_detector", lambda *_: detect.FaceDetector(RedSquares()))  # of find-faces
        main(words + ["--port", "0"] * (words[0] == "serve"))
    if "--out" in words:
        out = Path(words[words.index("--out") + 1])
        assert out.is_file() or any(out.iterdir())


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in RUN_HERE])
def test_what_is_not_run_names_what_there_is(name):
    words = COMMANDS[name]
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
    if words[:2] == ["pip", "install"]:
        text = (REPOSITORY / "pyproject.toml").read_text()
        assert all(f"\n{extra} = [" in text for extra in re.findall(r"\[(\w+)\]", " ".join(words)))
    if words[0] == "sbatch":
        files = [Path(word) for word in words if word.startswith(("launch/", "configs/"))]
        files += [package_config(word.removeprefix("pkg:")) for word in words if word.startswith("pkg:")]
        assert files and all((REPOSITORY / file).is_file() for file in files)


@pytest.mark.slow
@pytest.mark.parametrize(
    "block",  # tests/inference/test_export.py runs what needs an exported file
    [block for block in blocks("python") if "photo.jpg" in block.text and "model.onnx" not in block.text],
    ids=str,
)
def test_people_from_python(block, workplace, supplies):
    supply(Path("photo.jpg"), supplies, "python")
    exec(compile(block.text, str(block), "exec"), {})


def test_a_table_of_the_ages_in_the_names_of_folders(tmp_path, monkeypatch):
    (block,) = (block for block in blocks("python") if "csv.writer" in block.text)
    monkeypatch.chdir(tmp_path)
    for name in ("photos/7/b.jpg", "photos/31/a.jpg"):
        Path(name).parent.mkdir(parents=True)
        Path(name).touch()
    exec(compile(block.text, str(block), "exec"), {})
    assert Path("labels.csv").read_text().splitlines() == ["path,age", "31/a.jpg,31", "7/b.jpg,7"]


@pytest.mark.slow
def test_one_image_from_python(workplace, supplies, capsys):
    (block,) = (block for block in blocks("python") if "face.jpg" in block.text)
    for path in (Path("runs/utkface/best"), Path("face.jpg")):
        supply(path, supplies, "python")
    exec(compile(block.text, str(block), "exec"), {})
    age, female = map(float, capsys.readouterr().out.split())
    assert 0 <= age <= 120 and 0 <= female <= 1


def examples() -> dict:
    """The names that the Python blocks of docs/adding.md define."""
    names: dict = {"__name__": "examples"}
    for block in blocks("python"):
        if block.page == "docs/adding.md":
            exec(compile(block.text, str(block), "exec", dont_inherit=True), names)
    return names


def test_the_method_of_adding_learns():
    cls = examples()["Plain"]
    method = cls(lambda outputs, bias=True: nn.Linear(4, outputs, bias), AgeSpan(0, 100), cls.Config())
    method.fit_prior(torch.ones(101))
    output = method(torch.randn(3, 4))
    age = AgeRange(torch.tensor([10.0, 20, -99]), torch.tensor([10.0, 29, 120]), torch.tensor([True, True, False]))
    loss = method.loss(output, age)
    assert loss.shape == method.estimate(output).mean.shape == (3,) and (loss >= 0).all() and loss[2] == 0
    loss.sum().backward()
    assert method.head.weight.grad.abs().sum() > 0
    nn.init.zeros_(method.head.bias)
    assert method.estimate(method(torch.zeros(1, 4))).mean == 50
    far, end = (method.loss(output, AgeRange.exact(torch.full((3,), age))) for age in (120.0, 100.0))
    assert torch.equal(far, end), "ages outside the span are its ends"


def test_the_model_of_adding_makes_features():
    cls = examples()["Tiny"]
    model = cls(cls.Config(width=8), 32)
    face = Images(torch.randn(2, 3, 32, 32), torch.arange(2))
    assert model(face, Images.none_of(32, "cpu"), 2).shape == (2, model.num_features) == (2, 8)


def test_the_data_set_of_adding_is_packed(tmp_path):
    for age in (3, 70):
        (tmp_path / "images" / str(age)).mkdir(parents=True)
        (tmp_path / "images" / str(age) / "a.jpg").write_bytes(noise_jpeg(age))
    pack(examples()["AgeFolders"](tmp_path / "images"), tmp_path / "out", {"all": 1.0})
    info = json.loads((tmp_path / "out" / "all" / "dataset.json").read_text())
    assert info["samples"] == 2 and (info["labels"]["age"]["min"], info["labels"]["age"]["max"]) == (3, 70)


def test_the_metric_of_adding_is_computed_from_a_file(tmp_path):
    predictions = people(50, unknown=0.2)
    write_csv({None: predictions}, tmp_path / "predictions.csv")
    rmse = examples()["rmse"](read_csv(tmp_path / "predictions.csv")[None])
    assert rmse == pytest.approx(examples()["rmse"](predictions), abs=1e-3) and rmse > summarise(predictions)["mae"]


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_every_yaml_block_is_a_configuration(block, tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"data": {"train": "t", "val": "v"}}))
    (tmp_path / "block.yaml").write_text(block.text)
    read_run_config(["--config", f"{tmp_path}/run.yaml", "--config", f"{tmp_path}/block.yaml", "--run", "r"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_linked_file_exists(page):
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page):
    named = re.findall(
        r"(?:configs|launch|benchmarks|tests|mivolo_lite)/[\w/.-]+\.(?:yaml|sbatch|py|md)", page.read_text()
    )
    named = [name for name in named if Path(name).stem not in ("NAME", "X")]
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


def test_the_readme_is_short_and_its_first_screen_has_an_image_and_numbers():
    assert README.count("\n") <= 150
    head = README.partition("## Install")[0]
    sources = re.findall(
        r"\]\((?:benchmarks/results|configs|mivolo_lite/weights)/[\w.]+\) \|$", head, flags=re.MULTILINE
    )
    assert "docs/images/report.png" in head and len(sources) == 7


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/getting-started.md"])
def test_fine_tuning_is_one_link_from_where_newcomers_begin(page):
    assert "training.md#fine-tune-on-your-own-photos)" in (REPOSITORY / page).read_text()


def test_every_page_is_linked_from_the_readme():
    pages = [page.name for page in PAGES if page.name not in ("README.md", "index.md")]
    assert pages and [page for page in pages if f"](docs/{page})" not in README] == []


def test_the_map_names_every_room_and_nothing_else():
    mapped = re.findall(r"^\| (`[^|]+`) \|", README.partition("## Where things are")[2], flags=re.MULTILINE)
    names = [name for cell in mapped for name in re.findall(r"`([^`]+)`", cell)]
    assert [name for name in names if not (REPOSITORY / name).exists()] == []
    rooms = {f"mivolo_lite/{path.parent.name}/" for path in (REPOSITORY / "mivolo_lite").glob("*/__init__.py")}
    assert rooms and rooms <= set(names)


def test_every_method_model_and_source_has_its_row():
    pages = ("methods", "data", "datasets")
    methods, *data = ((REPOSITORY / "docs" / f"{page}.md").read_text() for page in pages)
    named = [name for name in MODELS if not name.startswith("mivolo_")] + ["mivolo_d1_224", *METHODS]
    assert [name for name in named if f"\n| `{name}`" not in methods] == []
    assert [name for name in SOURCES if f"\n| `{name}`" not in "\n".join(data)] == []


def test_methods_are_counted_right():
    counted = [
        int(count) for page in PAGES for count in re.findall(r"(\d+) (?:published ways|methods)", page.read_text())
    ]
    assert len(counted) >= 4 and set(counted) == {len(METHODS)}
