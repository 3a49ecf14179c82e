"""The mean of several checkpoints."""

import pytest
import torch
import yaml

from mivolo_lite.card import Card
from mivolo_lite.cli import main
from mivolo_lite.convert.ensemble import ensemble
from mivolo_lite.convert.greedy_soup import greedy_soup
from mivolo_lite.convert.soup import soup
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from tests.shards.tiny_shards import make_shards

SPAN = {"min_age": 0, "max_age": 100}


def saved(folder, seed, metrics=None, card=None, **method):
    torch.manual_seed(seed)
    model = {"name": "single", "backbone": "test_resnet"}
    card = Card(model, {"name": "dldl"} | method, dict(SPAN), image_size=32, metrics=metrics or {}, **card or {})
    estimator = Estimator(card)
    for buffer in estimator.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    estimator.save(folder)
    return estimator.state_dict()


def test_every_weight_and_statistic_is_the_mean(tmp_path):
    states = [saved(tmp_path / str(seed), seed, {"mae": 1.0}) for seed in range(3)]
    result = Estimator.load(soup([tmp_path / str(seed) for seed in range(3)], tmp_path / "soup"))
    assert result.card.metrics == {}
    for name, tensor in result.state_dict().items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, sum(state[name] for state in states) / 3, atol=1e-6), name


def test_a_soup_of_one_model_twice_is_that_model(tmp_path, capsys):
    state = saved(tmp_path / "a", 0)
    main(["soup", str(tmp_path / "a"), str(tmp_path / "a"), "--out", str(tmp_path / "soup")])
    result = Estimator.load(tmp_path / "soup").state_dict()
    assert all(torch.equal(result[name], tensor) for name, tensor in state.items())
    assert "mivolo-lite evaluate --checkpoint" in capsys.readouterr().out


def test_models_that_started_from_other_weights_are_noted(tmp_path, capsys):
    state = saved(tmp_path / "a", 0)
    saved(tmp_path / "b", 1)
    soup([tmp_path / "a", tmp_path / "b"], tmp_path / "others")
    assert f"note: {tmp_path / 'b'} seems to have started from other weights" in capsys.readouterr().err
    tuned = {name: tensor + 0.1 * tensor.std() if tensor.dim() > 1 else tensor for name, tensor in state.items()}
    Estimator(Card.load(tmp_path / "a")).save(tmp_path / "c", tuned)
    soup([tmp_path / "a", tmp_path / "c"], tmp_path / "same")
    assert "other weights" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "licences, joined",
    [
        (("", ""), ""),
        (("", "cc-by-nc-4.0"), "cc-by-nc-4.0"),
        (("mit", "mit"), "mit"),
        (("mit", "cc-by-nc-4.0"), "mit and cc-by-nc-4.0"),
    ],
)
@pytest.mark.parametrize("command", [soup, ensemble])
def test_the_licences_and_the_data_of_all_models_hold(tmp_path, command, licences, joined):
    for seed, licence in enumerate(licences):
        terms = {"licence": licence, "attribution": f"author {seed}", "data_digest": "ab"[seed] * 64}
        saved(tmp_path / str(seed), seed, card=terms)
    card = Card.load(command([tmp_path / "0", tmp_path / "1"], tmp_path / "out"))
    assert card.licence == joined and card.attribution == "author 0 and author 1"
    assert all(digest * 64 in card.data_digest for digest in "ab")


def test_forests_may_have_kept_other_numbers_of_samples_for_their_leaves(tmp_path):
    forest = {"name": "forest", "trees": 2, "depth": 3, "outputs": 8}
    states = [saved(tmp_path / str(size), size, refit_samples=size, **forest) for size in (6, 9)]
    result = Estimator.load(soup([tmp_path / "6", tmp_path / "9"], tmp_path / "soup"))
    assert result.method.ring_output.shape == (6, 8) and not result.method.ring_output.any()
    for name in ("head.weight", "leaf_mean"):
        torch.testing.assert_close(result.method.state_dict()[name], sum(s[f"method.{name}"] for s in states) / 2)


def test_a_normalisation_that_a_file_leaves_to_its_model_is_that_of_the_model(tmp_path):
    saved(tmp_path / "a", 0)
    saved(tmp_path / "b", 1)
    path = tmp_path / "b" / "model.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"normalisation": {}}))
    soup([tmp_path / "a", tmp_path / "b"], tmp_path / "soup")


def test_checkpoints_that_cannot_be_averaged_are_one_line(tmp_path):
    saved(tmp_path / "a", 0)
    saved(tmp_path / "b", 1, name="coral")
    with pytest.raises(UserError, match="method.name coral differs from the first's, "):
        soup([tmp_path / "a", tmp_path / "b"], tmp_path / "soup")
    saved(tmp_path / "c", 1, card={"normalisation": {"mean": [0.4] * 3, "std": [0.5] * 3}})
    with pytest.raises(UserError, match="c: normalisation .* differs from the first's, "):
        soup([tmp_path / "a", tmp_path / "c"], tmp_path / "soup")
    saved(tmp_path / "d", 1, card={"gender": False})
    for first, other in ("ad", "da"):
        with pytest.raises(UserError, match=f"{other}: gender_head.* is in one of the checkpoints alone"):
            soup([tmp_path / first, tmp_path / other], tmp_path / "soup")
    with pytest.raises(UserError, match="two checkpoints"):
        soup([tmp_path / "a"], tmp_path / "soup")
    with pytest.raises(UserError, match="already exists"):
        soup([tmp_path / "a", tmp_path / "a"], tmp_path / "b")


def bias_of(folder):
    return Estimator.load(folder).state_dict()["method.head.bias"][0].item()


def with_bias(folder, bias):
    state = saved(folder, 0)
    state["method.head.bias"].fill_(bias)
    Estimator(Card.load(folder)).save(folder, state)
    return folder


def test_a_greedy_soup_takes_the_best_first_and_leaves_out_what_makes_it_worse(tmp_path, capsys):
    far, best, over, under = (with_bias(tmp_path / str(bias), bias) for bias in (9.0, 3.0, 4.5, 1.5))
    # 3 errs by 0.25; with 4.5 the mean is 3.75, with 1.5 it is 2.25, with both 3: only none of them is better.
    out = greedy_soup([far, best, over, under], tmp_path / "soup", lambda folder: abs(bias_of(folder) - 3.5))
    assert bias_of(out) == 3.75
    verdicts = [line.split(", ")[-1] for line in capsys.readouterr().out.splitlines()[4:]]
    assert verdicts == ["kept", "left out", "left out"]


def test_a_greedy_soup_that_is_no_better_than_one_model_says_which(tmp_path):
    best, other = with_bias(tmp_path / "best", 3.0), with_bias(tmp_path / "other", 9.0)
    with pytest.raises(UserError, match="best alone is better"):
        greedy_soup([other, best], tmp_path / "soup", lambda folder: abs(bias_of(folder) - 3.0))
    assert not (tmp_path / "soup").exists()


def test_a_greedy_soup_is_measured_on_data_that_no_model_has_learnt(tmp_path, capsys):
    index = make_shards(tmp_path / "data", [12])
    saved(tmp_path / "a", 0)
    command = ["soup", str(tmp_path / "a"), str(tmp_path / "a"), "--data", str(tmp_path / "data"), "--out"]
    main([*command, str(tmp_path / "soup")])
    assert "kept" in capsys.readouterr().out
    saved(tmp_path / "a", 0, card={"data_digest": index.digest})
    with pytest.raises(SystemExit, match="2"):
        main([*command, str(tmp_path / "other")])
    assert "was trained on it" in capsys.readouterr().err
