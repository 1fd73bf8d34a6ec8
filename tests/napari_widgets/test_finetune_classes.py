"""Which classes are learnt."""

from __future__ import annotations

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap

from phasesam.napari_widgets.class_colours import BACKGROUND
from phasesam.napari_widgets.finetune_classes import classes_of
from phasesam.napari_widgets.training_layers import scan_labels
from phasesam.napari_widgets.training_pairs import ChosenPair
from phasesam.napari_widgets.viewer_state import state_of


def chosen(labels):
    scan = scan_labels(labels.data)
    return ChosenPair(Image(np.zeros(labels.data.shape)), labels, scan.planes, scan)


def painted(**options):
    data = np.zeros((6, 6), np.int32)
    data[1, 1], data[2, 2] = 1, 4
    return Labels(data, **options)


def test_values_are_classes_with_the_names_and_colours_of_the_layer():
    colormap = DirectLabelColormap(
        color_dict={1: "#d55e00", 4: "#0072b2", None: "transparent", 0: "transparent"}
    )
    features = {"index": [1, 4], "class": ["pore", "matrix"]}
    classes = classes_of([chosen(painted(colormap=colormap, features=features))], {}, False)
    assert classes.names == {1: "pore", 4: "matrix"}
    assert [row.colour.name() for row in classes.rows] == ["#d55e00", "#0072b2"]


def test_the_user_names_classes_and_zero_may_be_one():
    labels = painted()
    classes = classes_of([chosen(labels)], {labels: {4: "steel"}}, True)
    assert classes.names == {0: "background", 1: "class 1", 4: "steel"}
    assert classes.rows[0].colour == BACKGROUND


def test_layers_share_their_classes():
    other = Labels(np.full((3, 3), 9, np.int32))
    classes = classes_of([chosen(painted()), chosen(other)], {}, False)
    assert list(classes.names) == [1, 4, 9]


def test_objects_are_classes_by_their_class_names(viewer_model):
    image = viewer_model.add_image(np.zeros((6, 6)), name="SEM")
    state = state_of(viewer_model)
    layer = state.labels_layer(image)
    session, mask = state.session(image), np.zeros((6, 6), bool)
    ids = []
    for row, name in ((0, "pore"), (2, "class 4"), (4, ""), (5, "pore")):
        mask[:] = False
        mask[row, 2:5] = True
        ids.append(session.commit(mask, class_name=name))
    classes = classes_of([chosen(painted()), chosen(layer)], {}, False)
    assert classes.names == {1: "class 1", 4: "class 4", 5: "pore", 6: "object"}
    assert classes.of_values[layer] == dict(zip(ids, (5, 4, 6, 5), strict=True))


def test_no_layers_no_classes():
    assert classes_of([], {}, True).rows == ()


def named(names, **options):
    return painted(features={"index": list(names), "class": list(names.values())}, **options)


def test_classes_of_one_name_are_one_whatever_their_values():
    first, second = named({1: "ferrite", 4: "martensite"}), named({1: "martensite", 4: "ferrite"})
    classes = classes_of([chosen(first), chosen(second)], {}, False)
    assert classes.names == {1: "ferrite", 4: "martensite"}
    assert classes.of_values == {second: {1: 4, 4: 1}}
    assert set(classes.sources[1]) == {(first, 1), (second, 4)}


def test_one_value_with_two_names_is_two_classes():
    first, second = named({1: "ferrite", 4: "pore"}), named({1: "martensite", 4: "pore"})
    classes = classes_of([chosen(first), chosen(second)], {}, False)
    assert classes.names == {1: "ferrite", 4: "pore", 5: "martensite"}
    assert classes.of_values == {second: {1: 5, 4: 4}}


def test_values_without_a_name_are_the_class_that_others_call_so():
    plain, other = painted(), named({1: "ferrite", 4: "pore"})
    assert classes_of([chosen(plain), chosen(other)], {}, False).names == {1: "ferrite", 4: "pore"}
    third = named({1: "martensite"})
    classes = classes_of([chosen(plain), chosen(other), chosen(third)], {}, False)
    assert classes.names == {1: "class 1", 4: "pore", 5: "ferrite", 6: "martensite"}
    assert classes.of_values == {other: {1: 5, 4: 4}, third: {1: 6, 4: 4}}


def test_a_name_holds_for_the_layer_it_was_typed_for():
    first, second = painted(), named({1: "ferrite", 4: "pore"})
    given = {first: {1: "void"}}
    assert classes_of([chosen(second)], given, False).names == {1: "ferrite", 4: "pore"}
    both = classes_of([chosen(first), chosen(second)], given, False)
    assert both.names == {1: "void", 4: "pore", 5: "ferrite"}


def test_what_is_painted_as_background_is_what_zero_is():
    labels = named({1: "background", 4: "pore"})
    classes = classes_of([chosen(labels)], {}, True)
    assert classes.names == {0: "background", 4: "pore"}
    assert classes.of_values == {labels: {1: 0, 4: 4}}
    assert classes.rows[0].colour == BACKGROUND
    assert classes_of([chosen(labels)], {labels: {0: "resin"}}, True).names == {
        0: "resin",
        1: "background",
        4: "pore",
    }
