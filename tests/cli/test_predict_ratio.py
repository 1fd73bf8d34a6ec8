"""Amounts of phases on the command line."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from phasesam.cli.app import app
from phasesam.cli.phase_ratio import RatioWork, parse_ratio
from phasesam.cli.plane import Watch
from phasesam.core.errors import InvalidSettingError, SaveError
from phasesam.engines.ratio_guidance import RatioConfig
from phasesam.engines.semantic import PhaseMap
from phasesam.models.adapter_config import AdapterConfig

pytestmark = pytest.mark.usefixtures("own_cache")

CLASSES = ("matrix", "particle", "pore")


@pytest.fixture(scope="module")
def phases(tmp_path_factory, make_adapter):
    path = tmp_path_factory.mktemp("a") / "steel.safetensors"
    return make_adapter(path, classes=CLASSES)


@pytest.fixture
def stack(tmp_path):
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 255, (3, 40, 60), dtype=np.uint8)
    planes[1] = 7
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, planes, photometric="minisblack")
    return path


def predict(*args):
    result = CliRunner().invoke(app, ["predict", *map(str, args)])
    return result


def shares(path):
    labels = tifffile.imread(path)
    counts = [np.bincount(plane.ravel(), minlength=256) for plane in np.atleast_3d(labels)]
    return labels, np.array(counts)[..., :3]


def table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_stack_obeys_as_a_whole(phases, stack, tmp_path):
    options = ("--ratio", "particle=30%", "--ratio", "pore=0.1", "--json", "--orientations", 1)
    result = predict(stack, "--adapter", phases, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    labels, counts = shares(tmp_path / "out" / "stack_labels.tif")
    assert (labels[1] == 255).all()
    assert counts.sum(axis=0).tolist() == [2880, 1440, 480]
    assert counts[0].tolist() != counts[2].tolist()
    summary = json.loads(result.stdout)
    assert summary["ratio"]["fractions"] == [None, 0.3, 0.1]
    assert summary["results"][0]["fractions"]["particle"] == pytest.approx(0.3, abs=1e-6)
    rows = table(tmp_path / "out" / "stack_phases.csv")
    # No plane by itself has these shares.
    assert [row["requested"] for row in rows] == ["", "0.3", "0.1"] * 2
    assert all(row["low_95"] and row["high_95"] for row in rows)


def test_each_plane_obeys(phases, stack, tmp_path):
    options = ("--ratio", "particle=30%", "--ratio-over", "plane", "--smallest-region", 4)
    result = predict(
        stack, "--adapter", phases, "-o", tmp_path / "out", *options, "--smoothing", 2,
        "--orientations", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    _, counts = shares(tmp_path / "out" / "stack_labels.tif")
    assert counts[[0, 2], 1].tolist() == [720, 720]
    rows = table(tmp_path / "out" / "stack_phases.csv")
    assert [bool(row["low_95"]) for row in rows] == [True, False, True] * 2
    assert list(rows[0])[-5:] == ["fraction", "low_95", "high_95", "requested", "own"]


def test_the_table_says_what_was_asked_and_what_the_model_saw(phases, stack, tmp_path):
    def mapped(*ratio):
        out = tmp_path / "out"
        more = ("-o", out, "--orientations", 1, "--planes", 0, "--overwrite")
        result = predict(stack, "--adapter", phases, *more, *ratio)
        assert result.exit_code == 0, result.output
        return table(out / "stack_phases.csv")

    own = [row["fraction"] for row in mapped()]
    for ratio, requested, intervals in (
        (("pore=0.1",), ["", "", "0.1"], [True, True, False]),
        # What is left is no estimate either.
        (("pore=10%", "particle=0.3"), ["", "0.3", "0.1"], [False] * 3),
        (("pore=10+-2%", "particle=5-20%"), ["", "0.05-0.2", "0.1"], [True] * 3),
    ):
        rows = mapped(*(part for text in ratio for part in ("--ratio", text)))
        assert [row["requested"] for row in rows] == requested
        assert [row["own"] for row in rows] == own
        assert [bool(row["low_95"]) for row in rows] == intervals
        assert [bool(row["high_95"]) for row in rows] == intervals
    assert "own" not in mapped()[0]


def test_the_room_for_a_stack_is_looked_at_first():
    recipe = parse_ratio(["pore=2%"], CLASSES, "stack", RatioConfig())
    with pytest.raises(SaveError, match=r"need 12000000000\.0 GB"):
        RatioWork(recipe, 10**6, 10**12)
    with RatioWork(recipe, 1, 10**18):
        # A single plane stays in memory.
        pass


@pytest.mark.parametrize(
    ("texts", "fractions", "errors"),
    [
        (["pore=2%"], (None, None, 0.02), (0, 0, 0)),
        (["pore=0.02±0.005", "matrix = .5"], (0.5, None, 0.02), (0, 0, 0.005)),
        (["pore=2+-0.5%"], (None, None, 0.02), (0, 0, 0.005)),
        (["pore=1-3%", "particle=0.2-0.4"], (None, (0.2, 0.4), (0.01, 0.03)), (0, 0, 0)),
        (["matrix=20%", "particle=30%", "pore=50%"], (0.2, 0.3, 0.5), (0, 0, 0)),
        (["pore=25%+-2%"], (None, None, 0.25), (0, 0, 0.02)),
        (["pore=25 % ± 2 %", "matrix=1e-3"], (0.001, None, 0.25), (0, 0, 0.02)),
        (["pore=10%-20%", "matrix=10–20%"], ((0.1, 0.2), None, (0.1, 0.2)), (0, 0, 0)),
        (["pore=1e-3-5E-2", "matrix=.1−.2"], ((0.1, 0.2), None, (0.001, 0.05)), (0, 0, 0)),
    ],
)
def test_amounts_are_read(texts, fractions, errors):
    recipe = parse_ratio(texts, CLASSES, "stack", RatioConfig())
    assert recipe.fractions == fractions
    assert recipe.errors == errors


@pytest.mark.parametrize(
    ("texts", "level", "message"),
    [
        (["pore"], "stack", "expected CLASS=SHARE"),
        (["pore=much"], "stack", "expected CLASS=SHARE"),
        (["pore=-2%"], "stack", "expected CLASS=SHARE"),
        (
            ["glass=2%"],
            "stack",
            "'glass', which is no class of the adapter; its classes are matrix",
        ),
        (["pore=2%", "pore=3%"], "stack", "'pore', twice"),
        (["pore=60%", "matrix=60%"], "stack", "add up to at least 1.2"),
        (["pore=200%"], "stack", "within 0–1"),
        (["pore=120%"], "stack", r"'pore=120%': expected a share within .*, got 120%$"),
        (["pore=25"], "stack", r"share within 0–1.*, got 25; did you mean 'pore=25%'\?"),
        (["pore=10-20"], "stack", r"got 10; did you mean 'pore=10-20%'\?"),
        (["pore=25+-2"], "stack", r"got 25; did you mean 'pore=25\+-2%'\?"),
        (["pore=0.2+-3"], "stack", "standard error within .*, got 3$"),
        (["pore=250"], "stack", "got 250$"),
        (["pore=50+-120%"], "stack", "standard error within 0–1, or 0–100 %, got 120%"),
        (["pore=25%+-0.02"], "stack", "a % sign behind the second number too"),
        (["pore=3-1%"], "stack", "from low to high, got '3-1%'"),
        (["pore=1-"], "stack", "expected CLASS=SHARE"),
        (["pore=2%"], "image", "stack or plane"),
    ],
)
def test_mistakes_in_amounts_are_explained(texts, level, message):
    with pytest.raises(InvalidSettingError, match=message):
        parse_ratio(texts, CLASSES, level, RatioConfig())


def test_mistakes_end_before_the_work(phases, stack, tmp_path):
    for options, message in (
        (("--smoothing", 2), "need a --ratio"),
        (("--fewest-changes",), "need a --ratio"),
        (("--ratio", "glass=2%"), "no class of the adapter"),
    ):
        result = predict(stack, "--adapter", phases, "-o", tmp_path / "out", *options)
        assert (result.exit_code, message in " ".join(result.stderr.split())) == (2, True)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wish", [("--smallest-region", 4), ("--fewest-changes",)])
def test_wishes_for_single_planes_are_refused_over_a_stack(phases, stack, tmp_path, wish):
    result = predict(
        stack, "--adapter", phases, "-o", tmp_path / "out", "--ratio", "pore=2%", *wish
    )
    assert result.exit_code == 1
    assert "--ratio-over plane" in " ".join(result.output.split())


@pytest.mark.parametrize("n_planes", [1, 2])
def test_a_ratio_that_contradicts_the_image_is_warned_of(n_planes):
    probabilities = np.full((2, 20, 20), 0.02, np.float32)
    probabilities[0, :10] = probabilities[1, 10:] = 0.98
    found = PhaseMap(probabilities.argmax(0).astype(np.uint8), CLASSES[:2], probabilities)
    labels = np.zeros((n_planes, 20, 20), np.uint8)
    for wanted, warnings in (("matrix=70%", 1), ("matrix=51%", 0)):
        recipe = parse_ratio([wanted], CLASSES[:2], "stack", RatioConfig())
        with RatioWork(recipe, n_planes) as work:
            for index in range(n_planes):
                labels[index] = work.labels((index,), found, found.labels)
            work.finish(labels, Watch())
        assert (labels == 0).mean() == float(wanted[7:9]) / 100
        told = list(work.warnings())
        assert len(told) == warnings
        whole = "the image" if n_planes == 1 else "the stack"
        assert all(f"contradicts what the model sees in 20% of {whole}" in text for text in told)


def chain():
    """Map that gets from the first phase to the third most cheaply by way of the second."""
    # The second step contradicts the image.
    thirds = np.array([(0.8, 0.19, 0.01), (0.15, 0.8, 0.05), (0.01, 0.04, 0.95)], np.float32)
    probabilities = np.tile(thirds.T.repeat(10, 1)[..., None], 10)
    return PhaseMap(probabilities.argmax(0).astype(np.uint8), CLASSES, probabilities)


@pytest.mark.parametrize("fewest", [False, True])
def test_it_tells_when_fewer_changes_would_do(fewest):
    found = chain()
    shares = ("10%", "33.333%", "56.667%")
    wanted = [f"{name}={share}" for name, share in zip(CLASSES, shares, strict=True)]
    with RatioWork(parse_ratio(wanted, CLASSES, "plane", RatioConfig(fewest=fewest)), 1) as work:
        labels = work.labels((0,), found, found.labels)
        told = [text for text in work.warnings() if "fewest-changes" in text]
    changed = (labels != found.labels).mean()
    assert changed == pytest.approx(70 / 300 if fewest else 140 / 300, abs=0.01)
    assert told == ([] if fewest else [
        "the ratio changes 47% of the pixels of the image; --fewest-changes would change 23%"
    ])  # fmt: skip


def test_fewer_changes_are_counted_where_classes_are_free():
    """With *Fewest changes* free classes have other amounts than those of the likeliest map."""
    rng = np.random.default_rng(375)
    places = rng.normal(size=(60, 60)) * 2.5
    z = -((places - np.linspace(-3, 3, 4)[:, None, None]) ** 2) * rng.choice([0.3, 0.6, 1])
    chances = np.exp(z - z.max(0)).astype(np.float32)
    names = ("a", "b", "c", "d")
    found = PhaseMap(z.argmax(0).astype(np.uint8), names, chances / chances.sum(0))
    changed = {}
    for fewest in (False, True):
        recipe = parse_ratio(["a=45%", "c=5%"], names, "plane", RatioConfig(fewest=fewest))
        with RatioWork(recipe, 1) as work:
            changed[fewest] = (work.labels((0,), found, found.labels) != found.labels).mean()
            told = [text for text in work.warnings() if "fewest-changes" in text]
        if not fewest:
            said = told
    assert changed[False] > 1.25 * changed[True]
    assert f"--fewest-changes would change {changed[True]:.0%}" in said[0]


def test_it_tells_when_the_image_keeps_a_share_far_from_what_is_wanted():
    found = chain()
    for n_planes, over, where in ((1, "plane", "the image"), (2, "stack", "the stack"),
                                  (2, "plane", "a plane")):  # fmt: skip
        labels = np.zeros((n_planes, 30, 10), np.uint8)
        recipe = parse_ratio(["PORE=60+-2%"], CLASSES, over, RatioConfig())
        with RatioWork(recipe, n_planes, found.labels.size) as work:
            for index in range(n_planes):
                labels[index] = work.labels((index,), found, found.labels)
            work.finish(labels, Watch())
        share = (labels == 2).mean()
        off = abs(share - 0.6) / 0.02
        assert off > 2
        told = f"{where} allows {share:.1%} pore, which is {off:.1f} standard errors from what"
        assert told in next(iter(work.warnings()))


def test_case_of_names_counts_only_where_it_tells_them_apart():
    classes = ("Ferrite", "FERRITE", "Pore")
    recipe = parse_ratio(
        ["FERRITE=20%", "Ferrite=30%", "PORE=50%"], classes, "plane", RatioConfig()
    )
    assert recipe.fractions == (0.3, 0.2, 0.5)
    with pytest.raises(InvalidSettingError, match="no class of the adapter"):
        parse_ratio(["ferrite=20%"], classes, "plane", RatioConfig())


def test_whole_pixels_are_no_disagreement():
    found = chain()
    recipe = parse_ratio(["pore=33.36+-0.01%"], CLASSES, "plane", RatioConfig())
    with RatioWork(recipe, 1) as work:
        work.labels((0,), found, found.labels)
        assert not [text for text in work.warnings() if "standard errors" in text]


def test_what_exact_shares_leave_nothing_for_is_imposed():
    recipe = parse_ratio(["matrix=100%"], CLASSES, "plane", RatioConfig())
    assert recipe.imposed == (True, True, True)
    recipe = parse_ratio(["matrix=90%"], CLASSES, "plane", RatioConfig())
    assert recipe.imposed == (True, False, False)


@pytest.fixture
def told(tmp_path, make_adapter):
    config = AdapterConfig(rank=2, decoder_rank=2, ratio="located")
    return make_adapter(tmp_path / "told.safetensors", classes=CLASSES, config=config)


def test_the_network_is_told_and_the_solver_obeyed(told, stack, tmp_path):
    def mapped(*options):
        out = tmp_path / "out"
        result = predict(
            stack, "--adapter", told, "-o", out, "--ratio", "pore=10%", "--json",
            "--orientations", 1, "--overwrite", "--ratio-over", "plane", *options,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        return *shares(out / "stack_labels.tif"), json.loads(result.stdout)["ratio"]["by"]

    both, amounts, by = mapped("--ratio-by", "both")
    assert (by, amounts[[0, 2], 2].tolist()) == ("both", [240, 240])
    solver, amounts, by = mapped()
    assert (by, amounts[[0, 2], 2].tolist()) == ("solver", [240, 240])
    assert (both != solver).any()
    network, amounts, by = mapped("--ratio-by", "network")
    assert by == "network"
    assert amounts[[0, 2], 2].tolist() != [240, 240]
    assert (network != 255).any()


def test_a_network_is_not_told_that_each_plane_is_like_the_stack(told, stack, tmp_path):
    for by in ("both", "network"):
        result = predict(
            stack, "--adapter", told, "-o", tmp_path / by, "--ratio", "pore=10%", "--ratio-by", by
        )
        assert result.exit_code == 1
        assert "--ratio-over plane" in " ".join(result.output.split())


def test_who_uses_shares_is_checked(phases, told, stack, tmp_path):
    for options, message in (
        ((phases, "--ratio", "pore=2%", "--ratio-by", "network"), "this adapter takes no shares"),
        ((told, "--ratio", "pore=2%", "--ratio-by", "me"), "solver, network, both, got 'me'"),
        ((told, "--ratio-by", "both"), "need a --ratio"),
        (
            (told, "--ratio", "pore=2%", "--ratio-by", "network", "--smoothing", 2),
            "are for the solver",
        ),
        (
            (told, "--ratio", "pore=2%", "--ratio-by", "network", "--fewest-changes"),
            "are for the solver",
        ),
    ):
        result = predict(stack, "--adapter", *options, "-o", tmp_path / "out")
        assert (result.exit_code, message in " ".join(result.stderr.split())) == (2, True)


def test_a_network_that_hears_only_exact_shares(make_adapter, stack, tmp_path):
    config = AdapterConfig(rank=2, decoder_rank=2, ratio="global")
    old = make_adapter(tmp_path / "old.safetensors", classes=CLASSES, config=config)
    options = ("--adapter", old, "--ratio-by", "network", "--ratio-over", "plane")
    result = predict(stack, *options, "-o", tmp_path / "out", "--ratio", "pore=2%")
    assert result.exit_code == 2
    assert "none of matrix, particle" in " ".join(result.stderr.split())
    result = predict(
        stack, *options, "-o", tmp_path / "out", "--ratio", "pore=2+-1%", "--ratio", "matrix=60%",
        "--orientations", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "hears no standard errors" in " ".join(result.stderr.split())
    rows = table(tmp_path / "out" / "stack_phases.csv")
    # Told, not imposed.
    assert all(row["low_95"] and row["own"] == row["fraction"] for row in rows)


def test_regions_that_stay_too_small_are_told():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 48, 48))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
    noise = PhaseMap(logits.argmax(0).astype(np.uint8), CLASSES, probabilities.astype(np.float32))
    said = {}
    for size in (0, 400):
        recipe = parse_ratio(["pore=0.3"], CLASSES, "plane", RatioConfig(smallest=size))
        with RatioWork(recipe, 1) as work:
            work.labels((), noise, np.zeros((48, 48), np.uint8))
            said[size] = " ".join(work.warnings())
    assert "400 pixels all the same" in said[400]
    assert "all the same" not in said[0]
