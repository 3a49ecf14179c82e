"""A run goes wrong: its loss is not finite, its checkpoint is damaged, its data teach nothing. No work is lost, and why
is one line."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mivolo_lite.card import Card
from mivolo_lite.cli import main
from mivolo_lite.files import save_tensors
from mivolo_lite.shards.sample import Labels, Sample
from mivolo_lite.shards.scan import index_shards
from mivolo_lite.training.checkpoint import damage_of
from tests.shards.tiny_shards import make_shards, noise_jpeg, overwrite, write_shard
from tests.training.forked_ranks import run_launched
from tests.training.launching import lines


@pytest.fixture(scope="module")
def words(people):
    return [
        "--data.train", f"{people}/train", "--data.val", f"{people}/val", "--model.backbone", "test_resnet",
        "--method.name", "regression", "--data.image_size", "32", "--data.workers", "0", "--optim.global_batch", "16",
        "--optim.ema_decay", "0.9", "--train.log_every", "1", "--train.save_every", "3",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(words, tmp_path_factory):
    """A finished run of two epochs, with two checkpoints."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    main(["train", "--run", f"{folder}", "--optim.epochs", "2", *words])
    return folder


@pytest.fixture
def copy(run, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture
def checkpoint(run, tmp_path):
    """A copy of its last checkpoint."""
    return shutil.copytree(run / "checkpoints" / checkpoints(run)[-1], tmp_path / "checkpoint")


def checkpoints(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def change_tensors(path, change):
    """Replace tensors by others, as a version that took no sums could have written."""
    save_tensors(change(load_file(path)), path)
    (path.parent / "crc32.json").unlink(missing_ok=True)


def one_line(capsys, words):
    """The error of a command that must fail."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    error = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(error) == 1
    return error[0]


@pytest.mark.slow
def test_a_diverged_run_keeps_its_last_good_checkpoint_and_resumes_from_it(copy, words, capsys):
    before = checkpoints(copy)[-1]
    resume = ["train", "--run", f"{copy}", "--optim.epochs", "6", "--resume", "auto", *words]
    error = one_line(capsys, [*resume, "--optim.lr", "1e30", "--train.save_every", "1000", "--train.eval_every", "90"])
    assert "is not finite: the training diverged" in error and checkpoints(copy)[-1] == before
    for name in ("model", "ema", "optimizer"):
        tensors = load_file(copy / "checkpoints" / before / f"{name}.safetensors")
        assert all(tensor.isfinite().all() for tensor in tensors.values())
    records = (copy / "metrics.jsonl").read_text().splitlines()
    for record in records:
        json.loads(record, parse_constant=pytest.fail)
    main(resume)
    evaluated, end = map(json.loads, (copy / "metrics.jsonl").read_text().splitlines()[-2:])
    assert math.isfinite(evaluated["mae"]) and end["complete"]


@pytest.mark.slow
def test_a_checkpoint_whose_weights_diverge_at_once_is_set_aside(copy, words, capsys):
    before, last = checkpoints(copy)
    model = copy / "checkpoints" / last / "model.safetensors"
    change_tensors(model, lambda old: {name: (old[name] * 1e30).to(old[name].dtype) for name in old})
    resume = ["train", "--run", f"{copy}", "--optim.epochs", "4", "--resume", "auto", *words]
    assert "is not finite" in one_line(capsys, resume)
    assert checkpoints(copy) == [before, f"{last}.diverged"]
    main(resume)


DAMAGES = {
    "model.safetensors": [b"", b"\xff" * 300, None],
    "optimizer.safetensors": [b"", None],
    "ema.safetensors": [b"", b"{}"],
    "state.json": [b"", b"[1]", b'{"state": {}}', b'{"state": 5}', b"\xff\xfe", b"[" * 99999, None],
}


@pytest.mark.parametrize(
    "name, content", [(name, content) for name, contents in DAMAGES.items() for content in contents]
)
def test_a_damaged_file_is_named(checkpoint, name, content):
    file = checkpoint / name
    file.unlink() if content is None else file.write_bytes(content)
    assert damage_of(checkpoint).startswith(f"{file} is ")


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(copy, words, capsys, name):
    before, last = checkpoints(copy)
    file = copy / "checkpoints" / last / name
    file.write_bytes(b"")
    main(["train", "--run", f"{copy}", "--optim.epochs", "2", "--resume", "auto", *words])
    said = capsys.readouterr().out
    assert f"{file} is " in said and f"resuming from {before} instead" in said
    assert checkpoints(copy) == [before, last, f"{last}.damaged"]
    assert damage_of(copy / "checkpoints" / last) is None


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "ema.safetensors"])
def test_a_file_that_was_cut_is_damaged(checkpoint, name):
    assert damage_of(checkpoint) is None
    data = (checkpoint / name).read_bytes()
    for length in (8, 100, len(data) // 2, len(data) - 1):
        (checkpoint / name).write_bytes(data[:length])
        assert name in damage_of(checkpoint)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "ema.safetensors"])
def test_bytes_that_a_disk_lost_are_damage(checkpoint, name):
    data = (checkpoint / name).read_bytes()
    for place in (len(data) // 2, len(data) - 1):
        (checkpoint / name).write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert damage_of(checkpoint) == f"{checkpoint / name} is not what was written"
    (checkpoint / name).write_bytes(data)
    assert damage_of(checkpoint) is None
    for content in ("", "5", "{}"):
        (checkpoint / "crc32.json").write_text(content)
        assert "crc32.json is damaged" in damage_of(checkpoint)


def test_a_checkpoint_that_another_version_saved_with_nan_is_not_resumed_from(checkpoint):
    change_tensors(
        checkpoint / "optimizer.safetensors", lambda old: old | {name: old[name] * torch.nan for name in [*old][:1]}
    )
    assert "is not finite" in damage_of(checkpoint)


def test_averaged_weights_that_went_missing_are_damage(checkpoint):
    (checkpoint / "ema.safetensors").unlink()
    assert "a file beside it is missing" in damage_of(checkpoint)


def test_a_checkpoint_under_the_name_of_another_step_is_damaged(run, tmp_path):
    checkpoint = shutil.copytree(run / "checkpoints" / checkpoints(run)[-1], tmp_path / "step-000000003")
    assert "state.json is damaged or of another version (step)" in damage_of(checkpoint)


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1}, {"step": "3"}, {"step": True}, {"seed": None}, {"digest": 5}, {"best_mae": "low"}, {"subgroups":
        []}, {"subgroups": {"F": [1]}}, {"subgroups": {"F": math.nan}}, {"step": [1]}, {"step": 1.5},
        {"order_version": 1.5}, {"evaluated": None}, {"more": 1},
    ],
)  # fmt: skip
def test_a_state_that_cannot_be_meant_is_damage(checkpoint, change):
    content = json.loads((checkpoint / "state.json").read_text())
    content["state"] |= change
    (checkpoint / "state.json").write_text(json.dumps(content))
    assert "state.json is damaged" in damage_of(checkpoint)


def test_where_no_checkpoint_can_be_read_it_says_so(copy, words, capsys):
    for name in checkpoints(copy):
        (copy / "checkpoints" / name / "state.json").write_text("")
    error = one_line(capsys, ["train", "--run", f"{copy}", "--resume", "auto", *words])
    assert "no other checkpoint can be read; start a new run" in error and len(checkpoints(copy)) == 2


@pytest.mark.parametrize("name", ["optimizer", "ema"])
def test_tensors_of_another_model_are_one_line(copy, words, capsys, name):
    path = copy / "checkpoints" / checkpoints(copy)[-1] / f"{name}.safetensors"
    change_tensors(path, lambda old: old | {next(key for key in old if old[key].ndim > 1): torch.zeros(1, 7)})
    error = one_line(capsys, ["train", "--run", f"{copy}", "--optim.epochs", "3", "--resume", "auto", *words])
    assert f"{name}.safetensors does not fit the model" in error


def test_weights_of_another_model_are_named(copy, words, capsys):
    path = copy / "checkpoints" / checkpoints(copy)[-1] / "model.safetensors"
    change_tensors(path, lambda old: {name: old[name] for name in list(old)[1:]})
    error = one_line(capsys, ["train", "--run", f"{copy}", "--optim.epochs", "3", "--resume", "auto", *words])
    assert f"--resume: another model: {path}: these weights do not fit the model; missing: " in error


@pytest.mark.slow
def test_all_ranks_take_the_checkpoint_before_a_damaged_one(copy, words, tmp_path):
    before, last = checkpoints(copy)
    (copy / "checkpoints" / last / "state.json").write_text("")
    resume = ["train", "--run", f"{copy}", "--optim.epochs", "3", "--resume", "auto", *words]
    codes, output = run_launched("ddp", 2, main, (resume,), tmp_path)
    assert codes == [0, 0] and f"resumed at step {int(before[5:])}," in output


@pytest.mark.slow
@pytest.mark.parametrize("lr, what", [("1e5", "gradient"), ("1e12", "loss")])
@pytest.mark.parametrize("file", ["ddp", "zero2", "zero3", "fsdp2"])
def test_every_engine_stops_before_a_step_that_is_not_finite(words, tmp_path, file, lr, what):
    diverging = ["--optim.lr", lr, "--optim.warmup_epochs", "0", "--optim.clip_norm", "0"]
    changed = ["--model.backbone", "test_vit", "--train.save_every", "1"]
    command = ["train", "--run", f"{tmp_path}/run", *words, *diverging, *changed]
    codes, output = run_launched(file, 2, main, (command,), tmp_path)
    assert codes == [2, 2] and f"step 2: the {what} is not finite" in output
    assert output.count("mivolo-lite: ") == 2 and "mivolo_lite/" not in output  # a line of each rank, no traceback
    assert checkpoints(tmp_path / "run") == ["step-000000001"]


@pytest.mark.slow
def test_a_resumed_run_says_which_options_have_changed(copy, words, capsys):
    resume = ["train", "--run", f"{copy}", "--optim.epochs", "2", "--resume", "auto", *words]
    for more, changes in ((["--optim.lr", "0.002"], "optim.lr 0.002 (was 0.001)"), ([], "optim.lr 0.001 (was 0.002)")):
        main([*resume, *more])
        assert f"options have changed since the last start: {changes}\n" in capsys.readouterr().out
    main(resume)
    assert "have changed" not in capsys.readouterr().out
    for damaged in (b"optim: [", b"\xff", b"text", b""):
        (copy / "config.yaml").write_bytes(damaged)
        main(resume)
        assert "have changed" not in capsys.readouterr().out


@pytest.mark.slow
def test_what_a_user_keeps_beside_checkpoints_is_neither_deleted_nor_resumed_from(copy, words, capsys):
    last = copy / "checkpoints" / checkpoints(copy)[-1]
    for name in (f"{last.name}-good", "step-good", "zzz", "good.partial", "step-good.partial"):
        shutil.copytree(last, last.with_name(name))
    last.with_name("step-000000999.tar").write_text("")
    main(["train", "--run", f"{copy}", "--optim.epochs", "4", "--resume", "auto", *words])
    assert f"resumed at step {int(last.name[5:])}," in capsys.readouterr().out
    kept = {f"{last.name}-good", "step-good", "zzz", "good.partial", "step-good.partial", "step-000000999.tar"}
    assert kept < set(checkpoints(copy))


@pytest.mark.slow
def test_with_other_validation_data_the_best_weights_are_chosen_anew(copy, words, capsys):
    state = copy / "checkpoints" / checkpoints(copy)[-1] / "state.json"
    content = json.loads(state.read_text())
    content["state"] |= {"best_mae": 0.001, "val_digest": "another"}
    state.write_text(json.dumps(content))
    main(["train", "--run", f"{copy}", "--optim.epochs", "3", "--resume", "auto", *words])
    assert "another data set than before; `best` is chosen anew" in capsys.readouterr().out
    assert (
        json.loads((copy / "checkpoints" / checkpoints(copy)[-1] / "state.json").read_text())["state"]["best_mae"] > 1
    )


@pytest.mark.slow
def test_best_weights_that_are_gone_are_chosen_anew_also_by_a_complete_run(copy, words, capsys):
    shutil.rmtree(copy / "best")
    main(["train", "--run", f"{copy}", "--optim.epochs", "2", "--resume", "auto", *words])
    assert f"{copy}/best: is gone; `best` is chosen anew" in capsys.readouterr().out
    last = max((copy / "checkpoints").iterdir()).name
    assert Card.load(copy / "best").metrics["step"] == int(last[5:])


def test_the_best_weights_are_chosen_by_what_is_learnt(people, words, tmp_path, capsys):
    shards = {name: tmp_path / name for name in ("gender", "age")}
    for name, folder in shards.items():
        labels = [Labels(**({"gender": "MF"[n % 2]} if name == "gender" else {"age": (n, n)})) for n in range(16)]
        folder.mkdir()
        write_shard(folder / "part.tar", [Sample(f"s{n}", noise_jpeg(n), None, each) for n, each in enumerate(labels)])
        index_shards(folder)
    command = ["train", *words, "--data.train", f"{shards['gender']}", "--optim.epochs", "1"]
    main([*command, "--run", f"{tmp_path}/run"])  # evaluated on samples with both
    (val,) = lines(tmp_path / "run" / "metrics.jsonl", "val")
    assert val["mae"] > 1 and val["error"] == pytest.approx(1 - val["gender_accuracy"])
    error = one_line(capsys, [*command, "--run", f"{tmp_path}/other", "--data.val", f"{shards['age']}"])
    assert "data.val" in error and "none of 16 samples has a label to learn (gender)" in error


def test_a_run_that_cannot_resume_keeps_its_configuration(copy, words, capsys):
    before = (copy / "config.yaml").read_text()
    resume = ["train", "--run", f"{copy}", "--optim.epochs", "2", "--resume", "auto", *words]
    assert "another model" in one_line(capsys, [*resume, "--method.name", "coral"])
    assert (copy / "config.yaml").read_text() == before


def test_an_evaluation_that_a_run_owes_is_made_before_it_goes_further(copy, words):
    last = copy / "checkpoints" / checkpoints(copy)[-1]
    content = json.loads((last / "state.json").read_text())
    step = content["state"]["step"]
    content["state"] |= {"evaluated": step - 1, "best_mae": None}
    (last / "state.json").write_text(json.dumps(content))
    shutil.rmtree(copy / "best")
    main(["train", "--run", f"{copy}", "--optim.epochs", "2", "--resume", "auto", *words])
    kinds = [(record["kind"], record["step"]) for record in map(json.loads, open(copy / "metrics.jsonl"))]
    assert kinds.count(("val", step)) == 1 and (copy / "best" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": False}, "none of 27 samples has a label to learn (age, gender)"),
        ({"faces": False}, "no sample has a face, which is all that the model looks at"),
    ],
)
@pytest.mark.parametrize("option", ["data.train", "data.val"])
def test_data_that_teach_nothing_are_one_line_before_the_first_step(words, tmp_path, capsys, change, message, option):
    index = make_shards(tmp_path / "shards", [40])
    if "labels" in change:
        index.columns["age_lo"][:] = index.columns["age_hi"][:] = float("nan")
        index.columns["gender"][:] = 255
    else:
        index.columns["face_size"][:] = index.columns["face_offset"][:] = 0
    index.save()
    error = one_line(capsys, ["train", "--run", f"{tmp_path}/run", *words, f"--{option}", f"{index.folder}"])
    assert f"{option} {index.folder}: {message}" in error
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("sound", [0, 1])
def test_one_validation_image_at_least_must_be_decodable_before_the_first_step(words, tmp_path, capsys, sound):
    index = make_shards(tmp_path / "shards", [12])
    for number in np.flatnonzero(index.columns["face_size"])[sound:]:
        overwrite(index, number, "face", b"\xff\xd9", skip=int(index.columns["face_size"][number]) * 7 // 8)
    index_shards(index.folder)
    train = ["train", "--run", f"{tmp_path}/run", *words, "--optim.epochs", "1", "--data.val", f"{index.folder}"]
    if sound:
        main(train)
        assert "data.val: 7 images cannot be decoded and count as missing" in capsys.readouterr().out
    else:
        assert "none of 8 images that were tried can be decoded, first sample00000.face" in one_line(capsys, train)
        assert not (tmp_path / "run" / "metrics.jsonl").exists()
