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
    classes = classes_of([chosen(painted())], {4: "steel"}, True)
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
    assert classes.of_objects[layer] == dict(zip(ids, (5, 4, 6, 5), strict=True))


def test_no_layers_no_classes():
    assert classes_of([], {}, True).rows == ()
