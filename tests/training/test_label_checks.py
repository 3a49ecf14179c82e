"""What a run does not learn: labels that neither a sample nor a teacher has."""

import pytest

from mivolo_lite.card import Card
from mivolo_lite.config import read_run_config
from mivolo_lite.errors import UserError
from mivolo_lite.training.label_checks import unlearnt

FILES = ["--config", "pkg:utkface", "--run", "x"]


@pytest.mark.parametrize(
    "genders, weight, nothing",
    [
        ([True, True], 1, set()),
        ([True, False], 1, set()),
        ([False], 1, {"gender"}),
        ([True], 0, {"age", "gender"}),
        ([], 1, {"age", "gender"}),
    ],
)
def test_teachers_teach_the_gender_where_one_of_them_estimates_it(genders, weight, nothing, tmp_path):
    folders = [tmp_path / f"{number}" for number in range(len(genders))]
    for folder, gender in zip(folders, genders, strict=True):
        folder.mkdir()
        Card({"name": "single"}, {"name": "dldl"}, {"min_age": 0, "max_age": 100}, 64, gender=gender).save(folder)
    teachers = f"[{', '.join(map(str, folders))}]"
    config = read_run_config([*FILES, "--optim.teachers", teachers, "--optim.teacher_weight", f"{weight}"])
    assert unlearnt(config, {"age": 0, "gender": 0}) == nothing


def test_a_teacher_that_is_not_there_is_one_line(tmp_path):
    config = read_run_config([*FILES, "--optim.teachers", f"[{tmp_path / 'none'}]"])
    with pytest.raises(UserError, match=f"{tmp_path / 'none'}"):
        unlearnt(config, {})
