from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import load_file
from tests.training.conftest import disc_data
from typer.testing import CliRunner

from phasesam.cli.app import app
from phasesam.cli.evaluate_ratio import chosen_methods, requests_of, with_specimens
from phasesam.core.errors import InvalidSettingError
from phasesam.engines.segmenter import Segmenter
from phasesam.engines.semantic import segment_classes
from phasesam.evaluation import ratio_trials
from phasesam.evaluation.case_pictures import change_picture
from phasesam.evaluation.ratio_tables import (
    error_table,
    method_table,
    outcome_columns,
    summary,
    wrong_table,
)
from phasesam.evaluation.ratio_trials import (
    METHODS,
    NETWORKS,
    Networks,
    RatioTester,
    Request,
    ask_all,
    networks_of,
    train_networks,
)
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.manager import get_manager
from phasesam.training.fine_tuning import TrainingSettings
from phasesam.training.recipes import get_recipe

IMAGE = disc_data("semantic", 2).of("val")[0]
TRUE = np.bincount(IMAGE.label_array().ravel(), minlength=2) / IMAGE.label_array().size


@pytest.fixture(autouse=True)
def _surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    yield
    get_manager().unload_all()


@pytest.fixture(scope="module")
def adapters(tmp_path_factory, make_adapter):
    folder = tmp_path_factory.mktemp("networks")
    return {
        name: make_adapter(
            folder / f"{name}.safetensors",
            config=AdapterConfig(rank=2, decoder_rank=2, **changes),
            classes=("ground", "disc"),
        )
        for name, changes in NETWORKS.items()
    }


@pytest.fixture
def tester(adapters):
    return RatioTester(IMAGE, Networks("tiny", adapters))


def by_name(name):
    return next(method for method in METHODS if method.name == name)


def test_the_solver_meets_requests_and_networks_hear_them(tester):
    wanted = np.array([0.3, 0.7])
    request, other = Request("a", wanted), Request("b", wanted[::-1])
    for name in ("solver alone", "v2 + exact"):
        found = tester.answer(by_name(name), request)
        assert np.abs(found.achieved - wanted).max() <= 1 / IMAGE.label_array().size
    for name in ("ratio v0", "ratio v1", "ratio v2", "ratio v0 + box"):
        first, second = (tester._logits(by_name(name), r) for r in (request, other))
        assert np.abs(first - second).max() > 1e-4
    plain, boxed = (tester._logits(by_name(n), request) for n in ("no guidance", "box"))
    assert np.abs(plain - boxed).max() > 1e-4
    again = tester.answer(by_name("no guidance"), other, keep=True)
    assert np.array_equal(plain.argmax(0), again.labels)


def test_trust_stays_nearer_to_what_the_network_sees(tester):
    own = tester.answer(by_name("no guidance"), Request("", TRUE)).achieved
    wanted = own[::-1].copy()
    found = tester.answer(by_name("solver alone, trust"), Request("", wanted, 0.1)).achieved
    assert abs(found[0] - own[0]) < abs(wanted[0] - own[0])
    exact = tester.answer(by_name("solver alone, trust"), Request("", wanted, 0.0)).achieved
    assert exact == pytest.approx(wanted, abs=1e-4)


def test_a_network_encodes_an_image_once(tester, monkeypatch):
    from phasesam.models.sam import SamModel

    seen, original = [], SamModel.encode
    monkeypatch.setattr(SamModel, "encode", lambda m, x: seen.append(1) or original(m, x))
    tester.answer(by_name("ratio v2"), Request("a", np.array([0.3, 0.7])))
    first = len(seen)
    assert first > 0
    tester.answer(by_name("ratio v2"), Request("b", np.array([0.6, 0.4])))
    tester.answer(by_name("v2 + exact"), Request("c", np.array([0.5, 0.5])))
    # Only the upright view of a whole image, whose embedding the manager keeps, may be asked again.
    assert len(seen) == first


def test_an_encoder_that_was_taught_sees_for_itself(tmp_path, make_adapter):
    def network(seed):
        return make_adapter(
            tmp_path / f"{seed}.safetensors", config=AdapterConfig(rank=2, decoder_rank=2),
            classes=("ground", "disc"), seed=seed, window=96,
        )  # fmt: skip

    paths = {"plain": network(0), "self-taught": network(1), "true": network(2), "b": network(3)}

    def teach(path, image, request, method):
        assert path == paths["plain"]
        return paths["self-taught" if method.taught == "own" else request.name]

    tester = RatioTester(IMAGE, Networks("tiny", {"plain": paths["plain"]}, 1, teach))
    for name, request, used in (
        ("no guidance", "true", "plain"),
        ("self-taught", "true", "self-taught"),
        ("taught + exact", "true", "true"),
        ("taught + exact", "b", "b"),
    ):
        method = by_name(name)
        found = tester._logits(method, Request(request, TRUE if request == "true" else TRUE[::-1]))
        fresh = segment_classes(
            Segmenter(IMAGE.rgb(), "tiny", adapter=str(paths[used]), exclude_data_bar=False),
            orientations=1, keep_probabilities=True,
        )  # fmt: skip
        assert fresh.window == 96
        np.testing.assert_allclose(np.exp(found), fresh.probabilities, atol=1e-5)
    # What was taught for a request is not asked again; windows are large.
    assert len(tester._kept) == 2
    decoder = AdapterConfig(encoder=(), decoder_rank=2)
    plain = [
        make_adapter(tmp_path / f"d{seed}.safetensors", config=decoder, classes=("a", "b"),
                     seed=seed, window=96)
        for seed in range(2)
    ]  # fmt: skip
    taught = by_name("taught + exact")
    tester = RatioTester(IMAGE, Networks("tiny", {"plain": plain[0]}, 1, lambda *_: plain[1]))
    for method in (by_name("no guidance"), taught):
        tester._logits(method, Request("true", TRUE))
    assert [bool(windows) for windows in tester._kept.values()] == [True]


def test_all_are_asked_and_compared(adapters):
    requests = requests_of((0.05,), 2)
    methods = [by_name(n) for n in ("no guidance", "ratio v2", "solver alone")]
    outcomes = ask_all([IMAGE], Networks("tiny", adapters), methods, requests)
    assert [o.method for o in outcomes] == [m.name for m in methods] * 6
    assert [o.request for o in outcomes[::3]] == [
        "true", "swapped", "shifted", "zero", "off by 0.05", "off by 0.05",
    ]  # fmt: skip
    assert [(o.draw, o.error) for o in outcomes[::3][-3:]] == [(0, 0), (0, 0.05), (1, 0.05)]
    true = outcomes[2]
    assert true.oracle == 1
    assert np.abs(true.scores.fraction_errors).max() < 1e-4
    table = method_table(outcomes)
    assert [row[0] for row in table.rows] == ["no guidance", "ratio v2", "solver alone"]
    wrong = wrong_table(outcomes, ["ratio v2", "solver alone"])
    assert [row[0] for row in wrong.rows][:2] == ["true: ratio v2", "true: solver alone"]
    swapped = next(row for row in wrong.rows if row[0] == "swapped: solver alone")
    assert swapped[1] == swapped[2] == f"{TRUE[1]:.3f} / {TRUE[0]:.3f}"
    assert float(swapped[3]) < 1e-3
    assert len(error_table(outcomes, ["true", "off by 0.05"]).rows) == 2
    assert len(outcome_columns(outcomes)["dice"]) == 2 * len(outcomes)
    drawn = [o.scores.mean_dice for o in outcomes if o.request == "off by 0.05"][1::3]
    by_image = summary(outcomes)["off by 0.05"]["ratio v2"]["by_image"]
    assert by_image == pytest.approx({IMAGE.name: np.mean(drawn)})


def test_a_specimen_of_many_images_counts_once_by_specimen(tester):
    found = tester.answer(by_name("no guidance"), Request("true", TRUE))

    def scores(dice):
        right, wrong = round(100 * dice), round(100 - 100 * dice)
        confusion = np.array([[right, wrong, 0], [wrong, right, 0]])
        return replace(found.scores, confusion=confusion)

    outcomes = [
        replace(found, image=name, specimen=specimen, method=method, scores=scores(dice))
        for method, gain in (("no guidance", 0.0), ("solver alone", 1.0))
        for name, specimen, dice in (
            ("a1", "a", 0.5),
            ("a2", "a", 0.5),
            ("a3", "a", 0.5),
            ("b1", "b", 0.4 + 0.4 * gain),
        )
    ]
    table = method_table(outcomes)
    assert table.columns[-2:] == ("Dice - no guidance", "Dice - no guidance, by specimen")
    assert table.rows[0][-2:] == ("", "")
    assert [cell.split()[0] for cell in table.rows[1][-2:]] == ["+0.100", "+0.200"]
    single = [replace(o, specimen=o.image) for o in outcomes]
    assert method_table(single).columns[-1] == "Dice - no guidance"


def test_careful_users_doubt_wrong_requests(tester):
    wrong = requests_of((), 1)(TRUE)[1]
    exact, trusting = by_name("solver alone"), by_name("solver alone, trust")
    assert (wrong.error_for(exact), wrong.error_for(trusting)) == (0, 0.1)
    assert tester.answer(exact, wrong).achieved == pytest.approx(wrong.wanted, abs=1e-4)
    assert np.abs(tester.answer(trusting, wrong).achieved - wrong.wanted).max() > 0.01


def test_networks_are_trained_once_and_take_what_they_are_named_for(tmp_path, monkeypatch):
    trained = []

    def train(data, folder, settings, resume, callbacks, features):
        trained.append(settings.recipe.adapter)
        return type("Done", (), {"path": folder / "best.safetensors"})()

    monkeypatch.setattr(ratio_trials, "train", train)
    settings = TrainingSettings(get_recipe("default"), base="tiny")
    found = train_networks(disc_data("semantic"), tmp_path, ["plain", "v0", "v2"], settings)
    assert found["v2"] == tmp_path / "v2" / "best.safetensors"
    assert [(a.ratio, a.class_boxes) for a in trained] == [
        ("none", False), ("global", True), ("located", False),
    ]  # fmt: skip
    with pytest.raises(InvalidSettingError, match="plain, boxes, v0, v1, v2, got v9"):
        train_networks(disc_data("semantic"), tmp_path, ["v9"], settings)


def test_networks_of_a_fold_share_what_is_the_same_for_all(tmp_path, monkeypatch):
    from phasesam.models.sam import SamModel
    from phasesam.training import detail_training

    encoded, learnt = [], []
    encode, steps = SamModel.encode, detail_training._steps
    monkeypatch.setattr(SamModel, "encode", lambda m, x: encoded.append(1) or encode(m, x))
    monkeypatch.setattr(detail_training, "_steps", lambda *a: learnt.append(1) or steps(*a))
    recipe = get_recipe("default")
    brief = replace(
        recipe, adapter=replace(recipe.adapter, encoder=(), rank=2, decoder_rank=2),
        epochs=1, views_per_epoch=2, pool=2, detail_steps=1,
    )  # fmt: skip
    settings, data = TrainingSettings(brief, base="tiny", device="cpu"), disc_data("semantic")
    found = {}
    for names in (["plain"], ["plain", "v2"], ["v2"]):
        encoded.clear()
        learnt.clear()
        where = tmp_path / "-".join(names)
        found[len(found)] = train_networks(data, where, names, settings)
        # Two views and at least one picture to validate on, once for all networks.
        assert (len(encoded), len(learnt)) == (2 + len(data.of("val")), 1)
        assert sorted(path.name for path in where.iterdir()) == sorted(names)
    for one, other in ((found[0]["plain"], found[1]["plain"]), (found[1]["v2"], found[2]["v2"])):
        first, second = load_file(one), load_file(other)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[k], second[k]) for k in first)


def test_methods_are_found_by_their_names():
    assert chosen_methods(None, teach=True) == METHODS
    assert [m for m in METHODS if m not in chosen_methods(None)] == list(METHODS[-3:])
    found = chosen_methods("no guidance, solver alone, trust,solver alone")
    assert [m.name for m in found] == ["no guidance", "solver alone, trust", "solver alone"]
    assert networks_of(found) == ("plain",)
    for text in (
        "no guidance", "no guidance,magic", "no guidance,solver alonely",
        "no guidance,ratio v2,ratio v2", "ratio v2,no guidance", "box,ratio v2",
    ):  # fmt: skip
        with pytest.raises(InvalidSettingError, match="--methods"):
            chosen_methods(text)


def test_specimens_are_read_from_names():
    data = disc_data("semantic", 3)
    assert {i.specimen for i in with_specimens(data, r"(dis)c").images} == {"dis"}
    for pattern, message in (
        (r"(x)", "finds no group"),
        ("disc", "finds no group"),
        ("(", "no reg"),
    ):
        with pytest.raises(InvalidSettingError, match=message):
            with_specimens(data, pattern)


def test_changes_are_shown_in_their_colours():
    truth = np.zeros((40, 40), int)
    before, after = truth.copy(), truth.copy()
    before[:10] = 1
    after[30:] = 1
    picture = change_picture(np.full((40, 40, 3), 100, np.uint8), truth, before, [after])
    panel = picture[-40:, -40:]
    blue, vermilion = panel[5, 20].astype(int), panel[35, 20].astype(int)
    assert blue[2] > blue[0]
    assert vermilion[0] > vermilion[2]
    assert np.ptp(panel[20, 20]) == 0


def test_the_command(tmp_path, monkeypatch, make_adapter):
    def train(data, folder, settings, resume, callbacks, features):
        path = folder / "best.safetensors"
        make_adapter(path, classes=data.classes, config=settings.recipe.adapter)
        return type("Done", (), {"path": path})()

    monkeypatch.setattr(ratio_trials, "train", train)
    rows = ["image,label"]
    for number in range(3):
        labels = np.zeros((48, 64), np.uint8)
        labels[8 : 30 + number, 10:40] = 1
        tifffile.imwrite(tmp_path / f"i{number}.tif", 60 + 100 * labels)
        tifffile.imwrite(tmp_path / f"l{number}.tif", labels)
        rows.append(f"i{number}.tif,l{number}.tif")
    (tmp_path / "data.csv").write_text("\n".join(rows))
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app,
        ["evaluate", "ratio", str(tmp_path / "data.csv"), "-o", str(out), "--model", "tiny",
         "--device", "cpu", "--draws", "1", "--errors", "0.05", "--json",
         "--methods", "no guidance,ratio v2,v2 + exact",
         "--set", "adapter.rank=2", "--set", "adapter.decoder_rank=2"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)["requests"]
    assert set(values) == {"true", "swapped", "shifted", "zero", "off by 0.05"}
    assert values["true"]["v2 + exact"]["fraction_error"] < 1e-3
    assert len(values["true"]["no guidance"]["by_image"]) == 3
    with (out / "scores.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 3 * 3 * 5 * 2
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "Wrong requests" in html
    assert html.count("<img") == 2
    tifffile.imwrite(tmp_path / "l9.tif", np.full((48, 64), 9, np.uint8))
    (tmp_path / "blank.csv").write_text("\n".join([*rows, "i0.tif,l9.tif"]))
    trained = []
    monkeypatch.setattr(ratio_trials, "train", lambda *_, **__: trained.append(1))
    result = CliRunner().invoke(
        app,
        ["evaluate", "ratio", str(tmp_path / "blank.csv"), "-o", str(tmp_path / "no"),
         "--unlabelled", "9"],
    )  # fmt: skip
    assert result.exit_code != 0
    assert "expected labelled pixels" in " ".join(result.stderr.split())
    assert not trained
    for extra, message in (
        (["--task", "instance"], "--task semantic"),
        (["--orientations", "3"], "1, 2 or 4 orientations"),
        (["--errors", "2"], "standard errors within 0–1"),
        (["--folds", "9"], "9 folds of 3 specimens"),
    ):
        result = CliRunner().invoke(
            app,
            ["evaluate", "ratio", str(tmp_path / "data.csv"), "-o", str(tmp_path / "no"), *extra],
        )
        assert (result.exit_code, message in " ".join(result.stderr.split())) == (2, True)
