"""The four cells: both models on the same objects, compared after equally many clicks."""

from __future__ import annotations

import numpy as np
import pytest

from phasesam.core.errors import CancelledError, InvalidSettingError
from phasesam.evaluation.cells import ClickConfig, FourCells, evaluate_cells, opener
from phasesam.evaluation.click_curves import ClickCurves
from phasesam.evaluation.click_tables import click_columns
from phasesam.evaluation.pages import click_report
from phasesam.training.dataset import from_arrays


def data():
    labels = np.zeros((40, 60), np.int32)
    labels[4:16, 4:16], labels[20:36, 20:36], labels[2, 50] = 1, 2, 3
    images = [(name, labels * 20, labels, name[0]) for name in ("a1", "a2", "b1")]
    return from_arrays(images, "promptable", fractions=(1, 0, 0))


def shrinking(side):
    """A model that finds a square of this side about the first click, one larger each click."""

    def open_image(image):
        y, x = np.indices((40, 60))

        def answer(objects):
            masks = []
            for one in objects:
                centre = one.points[0]
                reach = (side + len(one.points)) / 2
                masks.append((np.abs(y - centre[0]) < reach) & (np.abs(x - centre[1]) < reach))
            return [(mask, None) for mask in masks]

        return answer

    return open_image


def test_four_cells_and_paired_gains():
    config = ClickConfig(clicks=3, max_clicks=4, min_area=2)
    done = []
    cells = evaluate_cells(
        data().images, shrinking(2), shrinking(6), config, progress=lambda *p: done.append(p)
    )
    # Two objects in each of three images; the pixel is left out.
    assert len(cells.base) == 6
    assert done == [(i, 6) for i in range(1, 7)]
    for k in (1, 3):
        expected = cells.cell("adapted", k).mean - cells.cell("base", k).mean
        assert cells.gain(k).interval.mean == pytest.approx(expected)
        assert expected > 0
    assert cells.cell("base", 1, "dice").mean > cells.cell("base", 1).mean
    # Images of one specimen are one unit.
    assert cells.cell("base", 1).n_units == 2
    saved = cells.saved_clicks(0.8).interval.mean
    assert saved == cells.base.noc(0.8).mean - cells.adapted.noc(0.8).mean


def test_a_model_compared_with_itself_gains_nothing():
    config = ClickConfig(clicks=2, max_clicks=3)
    cells = evaluate_cells(data().images[:1], shrinking(4), shrinking(4), config)
    assert cells.gain(1).interval.mean == 0
    assert cells.saved_clicks(0.9).interval.mean == 0


def test_pictures_show_the_four_cells():
    images = data().images
    cells = evaluate_cells(images, shrinking(2), shrinking(6), ClickConfig(3, 4))
    report = click_report("Teeth", cells, case=lambda i: (images[i].rgb(), images[i].label_array()))
    assert [p.title.split(":")[0] for p in report.pictures] == ["best", "median", "worst"]
    # Image, truth and four cells beside one another.
    assert report.pictures[0].rgb.shape == (2 * 40 + 6, 3 * 60 + 2 * 6, 3)
    assert click_report("Teeth", cells).pictures == ()


def test_stopping():
    with pytest.raises(CancelledError):
        evaluate_cells(data().images, shrinking(2), shrinking(6), should_stop=lambda: True)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvalidSettingError, match="at least 1000 pixels"):
        evaluate_cells(data().images, shrinking(2), shrinking(6), ClickConfig(min_area=1000))
    with pytest.raises(InvalidSettingError, match="2 to 5 clicks"):
        ClickConfig(clicks=6, max_clicks=5)
    with pytest.raises(InvalidSettingError, match="complete up to 11"):
        ClickConfig(clicks=15)
    curves = [
        ClickCurves(np.zeros((n, 3)), np.zeros((n, 3)), np.arange(n), np.full(n, ""), (), 3)
        for n in (1, 2)
    ]
    with pytest.raises(InvalidSettingError, match="same objects"):
        FourCells(*curves, ClickConfig())


def test_images_are_opened_as_they_were_normalised():
    image = data().images[0]
    segmenter = opener("tiny")(image)
    np.testing.assert_array_equal(segmenter.rgb, image.rgb())
    assert segmenter.model == "tiny"
    assert segmenter.windows is None
    side = max(image.rgb().shape[:2]) // 2
    assert opener("tiny", window=side)(image).windows.side == side


def test_images_of_a_specimen_are_told_apart():
    images = data().images
    cells = evaluate_cells(images, shrinking(2), shrinking(6), ClickConfig(3, 4))
    report = click_report("Teeth", cells, case=lambda i: (images[i].rgb(), images[i].label_array()))
    assert "objects in 3 images of 2 specimens" in report.tables[0].note
    shown = {picture.title.split(": ")[1].split(" ")[0] for picture in report.pictures}
    assert shown <= {"a1", "a2", "b1"}
    columns = click_columns(cells)
    rows = set(zip(columns["image"], columns["specimen"], columns["object"], strict=True))
    assert rows == {(n, n[0], label) for n in ("a1", "a2", "b1") for label in (1, 2, 3)}
    alone = evaluate_cells(images[:1], shrinking(2), shrinking(6), ClickConfig(3, 4))
    assert "in 1 image. " in click_report("Tooth", alone).tables[0].note
