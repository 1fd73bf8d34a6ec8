import numpy as np
import pytest

from phasesam.core.errors import InvalidSettingError
from phasesam.core.layer_basis import Basis
from phasesam.core.layer_colours import Limits
from phasesam.engines.features import LayerView
from phasesam.engines.layer_figures import LayerFigures
from phasesam.evaluation.feature_sheet import SheetTexts, Target, contact_sheet
from phasesam.evaluation.feature_tables import (
    layer_columns,
    layer_plots,
    layer_report,
    suggested_start,
)

COLOURS = ((255, 0, 0), (0, 0, 255))


def made_views(n=5, labelled=True):
    views = []
    for i in range(n):
        pictures = tuple(
            (np.full((6, 8, 3), np.array(c) * (i + 1) // n, np.uint8),) for c in COLOURS
        )
        score = 0.5 + 0.1 * min(i, 3)
        figures = LayerFigures(0.6, 0.9, 0.1 * i)
        if labelled:
            pairs = np.array([score, score]), np.array([score, np.nan])
            figures = LayerFigures(0.6, 0.9, 0.1 * i, pairs, pairs)
        basis = Basis(np.zeros(3), np.eye(3), np.zeros(3))
        views.append(
            LayerView(f"block{i + 1}", pictures, basis, Limits.of(np.zeros((2, 3))), figures)
        )
    return views


def test_each_layer_is_where_it_belongs():
    image = np.full((60, 80, 3), 90, np.uint8)
    sheet = contact_sheet(made_views(), image, SheetTexts(("base", "adapted"), columns=4))
    rgb = sheet.to_rgb()
    assert rgb.shape == (sheet.height, sheet.width, 3)
    width, height = sheet.cell
    assert width / height == pytest.approx(80 / 60, abs=0.02)
    assert len(sheet.cells) == 1 + 5 * 2
    for cell in sheet.cells:
        part = rgb[cell.y : cell.y + height, cell.x : cell.x + width]
        assert (part == cell.rgb[0, 0]).all()
    tokens = [cell for cell in sheet.cells if cell.is_tokens]
    for first, second in zip(tokens[::2], tokens[1::2], strict=True):
        # The first model stands above the second.
        assert first.x == second.x
        assert first.y < second.y
    # No picture lies on another one.
    covered = np.zeros(rgb.shape[:2], int)
    for cell in sheet.cells:
        covered[cell.y : cell.y + height, cell.x : cell.x + width] += 1
    assert covered.max() == 1
    texts = {caption.text for caption in sheet.captions}
    assert {"input", "block1", "block5", "base", "adapted", "probe 0.50"} <= texts


def test_text_is_on_the_sheet_and_escaped(tmp_path):
    image = np.full((60, 80, 3), 90, np.uint8)
    target = Target.of(np.zeros((60, 80), int), ("a",))
    sheet = contact_sheet(made_views(), image, SheetTexts(("a<b", "c")), target=target)
    assert "a&lt;b" in sheet.to_svg()
    assert (sheet.to_rgb() < 100).all(axis=-1).any()
    with pytest.raises(InvalidSettingError, match=r"\.png or \.svg, got sheet\.gif"):
        sheet.save(tmp_path / "sheet.gif")


def test_the_colours_of_the_target_are_named():
    labels = np.full((60, 80), -1)
    labels[:20], labels[20:40] = 0, 2
    target = Target.of(labels, ("matrix", "never seen", "pore<5 um"))
    image = np.full((60, 80, 3), 90, np.uint8)
    plain = contact_sheet(made_views(), image, SheetTexts(("A", "B")))
    sheet = contact_sheet(made_views(), image, SheetTexts(("A", "B")), target=target)
    assert sheet.height > plain.height
    rgb, places = sheet.to_rgb(), [sheet.cells[1].rgb[10, 10], sheet.cells[1].rgb[30, 10]]
    for mark, colour in zip(sheet.marks, places, strict=True):
        assert (rgb[mark.y + 3, mark.x + 3] == colour).all()
        assert mark.y > max(cell.y for cell in sheet.cells) + sheet.cell[1]
    assert (target.rgb[50, 10] == 255).all()
    texts = {caption.text for caption in sheet.captions}
    assert {"matrix", "pore<5 um"} <= texts
    assert "never seen" not in texts
    assert "pore&lt;5 um" in sheet.to_svg()


def test_the_picture_itself_can_be_left_out():
    sheet = contact_sheet(made_views(), None, SheetTexts(("A", "B")))
    assert all(cell.is_tokens for cell in sheet.cells)
    height, width = made_views()[-1].pictures[0][0].shape[:2]
    assert sheet.cell[0] / sheet.cell[1] == pytest.approx(width / height, abs=0.05)
    assert "input" not in {caption.text for caption in sheet.captions}


def test_many_names_go_to_further_lines():
    names = [f"a phase with quite a long name {k}" for k in range(12)]
    target = Target.of(np.arange(12)[:, None].repeat(20, 1), names)
    image = np.zeros((12, 20, 3), np.uint8)
    sheet = contact_sheet(made_views(), image, SheetTexts(("A", "B"), columns=4), target=target)
    assert len({mark.y for mark in sheet.marks}) > 1
    assert max(mark.y for mark in sheet.marks) < sheet.height
    assert max(mark.x for mark in sheet.marks) < sheet.width


def test_tables_and_curves():
    views, models = made_views(), ("base", "adapted")
    columns = layer_columns(views, models, ("matrix", "pore", "never seen"))
    assert columns["probe base"] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.8])
    assert np.isnan(columns["fisher adapted pore"]).all()
    assert np.isnan(columns["probe base never seen"]).all()
    assert suggested_start(views) == "block4"
    report = layer_report("Layers", views, models, ("matrix", "pore"))
    text = report.to_markdown()
    assert "From block4 on" in text
    assert "adapter.blocks=block4" in text
    assert "0.500 / 0.500" in text
    assert [plot.title for plot in layer_plots(views, models)] == [
        "Linear probe", "Fisher ratio", "Likeness and change", "Variance in the pictures",
    ]  # fmt: skip


def test_without_labels_there_is_no_suggestion():
    views = made_views(labelled=False)
    assert suggested_start(views) is None
    assert "probe" not in layer_columns(views, ("base", "adapted"))
    assert "adapting" not in layer_report("Layers", views, ("base", "adapted")).to_markdown()
