"""Colours and names of classes, tables of them, and where they come from."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtGui import QColor

from phasesam.napari_widgets.class_colours import (
    class_colour,
    class_features,
    layer_class_names,
    layer_colour,
)
from phasesam.napari_widgets.class_table import ClassRow, ClassTable


def test_classes_have_colours_of_their_own():
    colours = [class_colour(index).name() for index in range(7)]
    assert len(set(colours)) == 7
    assert colours[0] == "#e69f00"
    assert class_colour(7) == class_colour(0)


def test_colour_of_a_value_in_a_layer():
    colormap = DirectLabelColormap(color_dict={1: "#d55e00", None: "transparent"})
    layer = Labels(np.ones((3, 3), int), colormap=colormap)
    assert layer_colour(layer, 1).name() == "#d55e00"
    assert layer_colour(layer, 2) is None
    assert layer_colour(layer, 0) is None


def test_names_survive_the_features_of_a_layer():
    names = {1: "ferrite", 4: "bainite"}
    layer = Labels(np.ones((3, 3), int), features=class_features(names))
    assert layer_class_names(layer) == names


def test_names_from_other_columns():
    layer = Labels(np.ones((3, 3), int), features={"Phase": ["none", "pore"]})
    assert layer_class_names(layer) == {0: "none", 1: "pore"}
    assert layer_class_names(Labels(np.ones((3, 3), int), features={"area": [1, 2]})) == {}
    assert layer_class_names(Labels(np.ones((3, 3), int))) == {}


@pytest.fixture
def table(qtbot):
    table = ClassTable(("Share",))
    qtbot.addWidget(table)
    table.set_rows([ClassRow(1, "a", QColor("red")), ClassRow(5, "b", QColor("blue"))])
    return table


def test_a_table_says_what_it_shows(table):
    table.set_texts(5, "12 %")
    assert table.rows() == [(1, "a", ("",)), (5, "b", ("12 %",))]


def test_a_new_name_is_told_with_its_value(table, qtbot):
    with qtbot.waitSignal(table.renamed) as told:
        table.edit_name(5, " pores ")
    assert told.args == [5, "pores"]


def test_filling_a_table_renames_nothing(table, qtbot):
    with qtbot.assertNotEmitted(table.renamed):
        table.set_rows([ClassRow(2, "c", QColor("red"))])
        table.set_texts(2, "1 %")


def test_numbers_that_are_text_in_a_table():
    labels = Labels(
        np.zeros((4, 4), int),
        features={"index": ["1", "2", "", None], "class": ["pore", "matrix", "odd", "none"]},
    )
    assert layer_class_names(labels) == {1: "pore", 2: "matrix"}
