import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from phasesam.core.coordinates import resize_image_longest_side
from phasesam.core.errors import (
    CancelledError,
    InvalidImageError,
    InvalidSettingError,
    ModelError,
)
from phasesam.core.layer_basis import principal_basis
from phasesam.core.layer_colours import Limits, colours
from phasesam.core.similar_region import similarity, unit_tokens
from phasesam.engines.feature_config import FeatureConfig
from phasesam.engines.features import compare_layers, look
from phasesam.engines.layer_tokens import LayerTokens, TokenShelf, read_layers
from phasesam.engines.segmenter import Segmenter
from phasesam.formats.overlay import PALETTE
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.layer_taps import check_layers, layer_names, listening
from phasesam.models.sam import build_model


@pytest.fixture(scope="module")
def picture(micrograph, manager):
    return Segmenter(micrograph.image, "tiny", manager=manager, exclude_data_bar=False)


@pytest.fixture(scope="module")
def adapter(make_adapter, tmp_path_factory):
    path = tmp_path_factory.mktemp("adapters") / "all.safetensors"
    return make_adapter(path, config=AdapterConfig(blocks="all", rank=2, decoder_rank=2))


def difference(first, second):
    return max(
        int(np.abs(a.astype(int) - b.astype(int)).max())
        for one, two in zip(first, second, strict=True)
        for model, other in zip(one.pictures, two.pictures, strict=True)
        for a, b in zip(model, other, strict=True)
    )


def made_tokens(n_layers=8, drift=0.15, seed=0, shape=(24, 32), c=40):
    """Features that change a little from layer to layer, as those of a residual network."""
    rng = np.random.default_rng(seed)
    smooth = [np.kron(rng.normal(size=(6, 8)), np.ones((4, 4))) for _ in range(6)]
    x = np.stack(smooth, -1) @ (
        rng.normal(size=(6, c)) * np.array([3, 2.9, 2.8, 1, 0.5, 0.4])[:, None]
    )
    maps = {}
    for layer in range(1, n_layers + 1):
        x = (
            x
            + drift * rng.normal(size=(*shape, c))
            + drift * (x @ rng.normal(size=(c, c))) / np.sqrt(c)
        )
        maps[f"block{layer}"] = x.astype(np.float16)
    sides = dict.fromkeys(maps, 16.0)
    return LayerTokens(maps, sides, (shape[0] * 16, shape[1] * 16))


# ------------------------------------------------------------------ listening


@pytest.mark.parametrize(("name", "n"), [("tiny", 3), ("mobile_sam", 16)])
def test_layers_are_named_in_the_order_of_computing(name, n):
    model = build_model(name)
    names, heard = layer_names(model), []
    assert len(names) == n
    assert names[-1] == "neck"
    with torch.inference_mode(), listening(model, names, lambda name, _: heard.append(name)):
        model.encode(torch.zeros(1, 3, 1024, 1024))
    assert tuple(heard) == names
    assert not any(module._forward_hooks for module in model.modules())


def test_what_is_heard_is_what_the_layers_give(picture, manager):
    tokens = read_layers(picture)
    with manager.lease("tiny", None) as model, torch.inference_mode():
        x = model.preprocess(resize_image_longest_side(picture.rgb, 1024))
        output = model.encode(x)
        encoder = model.image_encoder
        first = encoder.blocks[0](encoder.patch_embed(x) + encoder.pos_embed)
    neck = output.features[0].permute(1, 2, 0).numpy()
    assert_allclose(tokens.maps["neck"], neck[:48], atol=2e-3)
    assert_allclose(tokens.maps["block1"], first[0, :48].numpy(), atol=5e-3)
    assert tokens.sides == dict.fromkeys(tokens.names, 4.0)
    assert tokens.seen("neck") == (48, 64)


def test_unknown_layers_are_refused(picture):
    with pytest.raises(InvalidSettingError, match=r"block1, block2, neck; got block9"):
        read_layers(picture, ["block1", "block9"])
    with pytest.raises(InvalidSettingError, match="got none"):
        check_layers(build_model("tiny"), [])


def test_a_constant_image_shows_nothing(manager):
    with pytest.raises(InvalidImageError, match="all pixels of the image of 30 x 40 are equal"):
        read_layers(Segmenter(np.full((30, 40), 7, np.uint8), "tiny", manager=manager))


def test_one_row_of_pixels_is_one_row_of_tokens(manager):
    row = np.arange(100, dtype=np.uint8)[None]
    comparison = compare_layers([Segmenter(row, "tiny", manager=manager)])
    assert comparison.tokens[0][0].seen("neck") == (1, 64)
    assert comparison.layers[0].pictures[0][0].shape == (1, 64, 3)


def test_it_can_be_stopped_in_mid_run(picture, manager):
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(CancelledError):
        read_layers(picture, should_stop=should_stop)
    with manager.lease("tiny", None) as model:
        assert not any(module._forward_hooks for module in model.modules())


def test_an_adapter_of_another_base_is_refused(make_adapter, tmp_path, micrograph, manager):
    path = make_adapter(tmp_path / "other.safetensors", base="mobile_sam")
    with pytest.raises(ModelError, match="mobile_sam"):
        read_layers(Segmenter(micrograph.image, "tiny", adapter=path, manager=manager))


def test_beyond_a_limit_features_lie_on_the_disk(picture):
    held, shelf = read_layers(picture), TokenShelf(most=300_000)
    spilt = read_layers(picture, shelf=shelf)
    assert any(isinstance(m, np.memmap) for m in spilt.maps.values())
    assert not all(isinstance(m, np.memmap) for m in spilt.maps.values())
    for name in held.names:
        assert_array_equal(held.maps[name], spilt.maps[name])
    del spilt
    shelf.close()


# ------------------------------------------------------------------ colours


def test_colours_are_the_same_every_time_and_in_any_order(picture, adapter):
    against = picture.with_adapter(adapter)
    first = compare_layers([picture], [against])
    again = compare_layers([picture], [against])
    shuffled = compare_layers(
        [picture], [against], config=FeatureConfig(layers=("neck", "block1", "block2"))
    )
    assert difference(first.layers, again.layers) == 0
    assert difference(first.layers, shuffled.layers) == 0
    assert [view.name for view in shuffled.layers] == ["block1", "block2", "neck"]


def test_a_picture_given_twice_is_shown_twice_alike(picture):
    views = compare_layers([picture, picture]).layers
    for view in views:
        assert_array_equal(view.pictures[0][0], view.pictures[0][1])


def test_padding_gets_no_colour(picture, micrograph, manager):
    square = np.zeros((256, 256), micrograph.image.dtype)
    square[:192] = micrograph.image
    views = compare_layers([picture]).layers
    for view in views:
        assert view.pictures[0][0].shape == (48, 64, 3)
        # All colours are used within the picture.
        assert (np.ptp(view.pictures[0][0], axis=(0, 1)) == 255).all()


def test_the_same_model_twice_has_the_same_colours(picture):
    views = compare_layers([picture], [picture]).layers
    for view in views:
        assert_array_equal(view.pictures[0][0], view.pictures[1][0])
        assert view.figures.cka == pytest.approx(1, abs=1e-4)
        assert view.figures.change == 0


def test_an_adapter_changes_colours_and_figures(picture, adapter):
    views = compare_layers([picture], [picture.with_adapter(adapter)]).layers
    assert (views[-1].pictures[0][0] != views[-1].pictures[1][0]).any()
    assert 0 < views[-1].figures.cka < 0.999
    assert views[-1].figures.change > 0


def test_neighbouring_layers_have_neighbouring_colours():
    tokens = made_tokens()

    def step(pictures):
        pairs = itertools.pairwise(pictures)
        return np.mean([np.abs(a.astype(int) - b.astype(int)).mean() for a, b in pairs])

    continuous = [view.pictures[0][0] for view in look(((tokens,),))]
    independent = []
    for name in tokens.names:
        x = tokens.maps[name].reshape(-1, 40).astype(np.float32)
        basis = principal_basis(x, np.ones(40))
        scores = basis.scores(tokens.maps[name])
        # As they come from a decomposition: signs are nobody's choice.
        scores *= np.where(np.random.default_rng(len(independent)).random(3) < 0.5, -1, 1).astype(
            np.float32
        )
        independent.append(colours(scores, Limits.of(scores.reshape(-1, 3))))
    assert step(independent) > 3 * step(continuous)
    own = [v.pictures[0][0] for v in look(((tokens,),), config=FeatureConfig(continuous=False))]
    assert step(own) >= step(continuous)


def test_colours_of_models_share_one_basis():
    one, other = made_tokens(seed=0), made_tokens(seed=0)
    shifted = {name: m.copy() for name, m in other.maps.items()}
    for m in shifted.values():
        m[:12] += np.float16(3.0)
    views = look(((one,), (LayerTokens(shifted, other.sides, other.shape),)))
    for view in views:
        # Where nothing was changed, the same colour means the same.
        assert_array_equal(view.pictures[0][0][12:], view.pictures[1][0][12:])
        assert (view.pictures[0][0][:12] != view.pictures[1][0][:12]).any()


def test_classes_decide_the_directions_when_asked():
    tokens = made_tokens()
    labels = np.kron(np.random.default_rng(3).integers(0, 2, (24, 32)), np.ones((16, 16), int))
    marked = {name: m.copy() for name, m in tokens.maps.items()}
    for m in marked.values():
        m[..., 5] += (2 * labels[::16, ::16]).astype(np.float16)
    marked = LayerTokens(marked, tokens.sides, tokens.shape)
    view = look(((marked,),), [labels], FeatureConfig(basis="classes"))[0]
    red = view.pictures[0][0][..., 0].astype(int)
    means = [red[labels[::16, ::16] == k].mean() for k in (0, 1)]
    assert abs(means[0] - means[1]) > 100
    with pytest.raises(InvalidSettingError, match="two classes"):
        look(((marked,),), [None], FeatureConfig(basis="classes"))


def test_only_the_foreground_is_coloured_when_asked():
    tokens = made_tokens()
    marked = {name: m.copy() for name, m in tokens.maps.items()}
    inside = np.zeros((24, 32), bool)
    inside[5:12, 5:20] = True
    for m in marked.values():
        m[inside] += np.float16(100.0)
    marked = LayerTokens(marked, tokens.sides, tokens.shape)
    for view in look(((marked,),), config=FeatureConfig(foreground_first=True)):
        picture = view.pictures[0][0]
        # Otsu's threshold lies at the edge of a group: a token there may be taken for the other.
        assert (picture[~inside] == 40).all(axis=-1).mean() > 0.99
        assert (np.ptp(picture[inside].reshape(-1, 3), axis=0) > 200).all()


def test_layers_of_different_resolution_are_continuous(micrograph, manager):
    views = compare_layers([Segmenter(micrograph.image, "mobile_sam", manager=manager)]).layers
    shapes = [view.pictures[0][0].shape[:2] for view in views]
    assert {(192, 256), (96, 128), (48, 64)} <= set(shapes)


# ------------------------------------------------------------------ figures


def test_layers_that_are_the_labels_are_probed_perfectly():
    tokens = made_tokens()
    grid = np.random.default_rng(0).integers(0, 3, (24, 32))
    labels = np.kron(grid, np.ones((16, 16), int))
    maps = {**tokens.maps, "block4": np.eye(3, dtype=np.float16)[grid]}
    views = look(((LayerTokens(maps, tokens.sides, tokens.shape),),), [labels])
    assert views[3].figures.probe_means == (1.0,)
    assert views[3].figures.fisher[0].min() > 0.9
    assert views[0].figures.probe_means[0] < 0.6
    assert views[0].figures.fisher[0].max() < 0.1


def test_figures_by_picture(picture, adapter):
    labels = np.zeros(picture.shape, int)
    labels[:, 100:] = 1
    views = compare_layers(
        [picture] * 3, [picture.with_adapter(adapter)] * 3, [labels, None, labels]
    ).layers
    figures = views[-1].figures
    assert len(figures.probe) == len(figures.fisher) == 2
    assert all(0 <= value <= 1 for value in figures.probe_means)
    assert 0 < figures.explained < 1
    assert look_without_labels(picture).probe == ()


def look_without_labels(picture):
    return compare_layers([picture]).layers[-1].figures


def test_labels_have_the_shape_of_the_image(picture):
    with pytest.raises(InvalidSettingError, match=r"\(192, 256\) of the image, got \(5, 5\)"):
        compare_layers([picture], labels=[np.zeros((5, 5), int)])
    with pytest.raises(InvalidSettingError, match="for each of 1 pictures, got 2"):
        compare_layers([picture], labels=[None, None])
    with pytest.raises(InvalidSettingError, match="same 1 pictures of both models, got 2"):
        compare_layers([picture], [picture, picture])
    with pytest.raises(InvalidSettingError, match="at least one"):
        compare_layers([])


def test_models_of_other_kinds_are_not_compared(picture, micrograph, manager):
    other = Segmenter(micrograph.image, "mobile_sam", manager=manager)
    with pytest.raises(InvalidSettingError, match="adapters of one model"):
        compare_layers([picture], [other])


@pytest.mark.parametrize("change", [{"basis": "ica"}, {"space": "hsv"}, {"points": 3}])
def test_settings_are_checked(change):
    with pytest.raises(InvalidSettingError):
        FeatureConfig(**change)


def with_finer_layer(tokens):
    """The same with a first layer of a quarter of the token size."""
    first = np.repeat(np.repeat(tokens.maps["block1"], 4, axis=0), 4, axis=1)
    sides = {"stage1.block1": 4.0, **tokens.sides}
    return LayerTokens({"stage1.block1": first, **tokens.maps}, sides, tokens.shape)


def test_layers_of_all_resolutions_are_judged_alike():
    tokens = with_finer_layer(made_tokens())
    grid = np.random.default_rng(0).integers(0, 3, (24, 32))
    views = look(((tokens,),), [np.kron(grid, np.ones((16, 16), int))])
    fine, coarse = views[0].figures, views[1].figures
    assert_allclose(fine.probe[0], coarse.probe[0], atol=0.02)
    assert_allclose(fine.fisher[0], coarse.fisher[0], rtol=0.05)


def test_a_class_that_is_most_of_no_token_has_no_figures():
    tokens = with_finer_layer(made_tokens())
    labels = np.zeros((384, 512), int)
    labels[::16, ::16] = 1
    for view in look(((tokens,),), [labels]):
        assert view.figures.probe == view.figures.fisher == ()
    labels[:32, :32] = 2
    for view in look(((tokens,),), [labels]):
        assert np.isnan(view.figures.probe[0][1])
        assert np.isfinite(view.figures.probe_means[0])


@pytest.mark.parametrize("shape", [(24, 32), (64, 4), (4, 64), (64, 8)])
def test_noise_tells_nothing_of_any_picture(shape):
    rng = np.random.default_rng(1)
    maps = {"block1": rng.normal(size=(*shape, 12)).astype(np.float16)}
    tokens = LayerTokens(maps, {"block1": 16.0}, (shape[0] * 16, shape[1] * 16))
    labels = np.kron(rng.integers(0, 2, shape), np.ones((16, 16), int))
    means = look(((tokens,),), [labels])[0].figures.probe_means
    assert means[0] < 0.45


def test_pictures_without_labels_do_not_spoil_the_probe():
    tokens = made_tokens()
    labels = np.kron((tokens.maps["block1"][..., 0] > 0).astype(int), np.ones((16, 16), int))
    alone = look(((tokens,),), [labels])[0].figures.probe_means
    others = look(((tokens, made_tokens(seed=1), made_tokens(seed=2)),), [labels])[0]
    # Bases are shared by all pictures, and so is the scale of the channels.
    assert others.figures.probe_means == pytest.approx(alone, abs=0.1)


def test_directions_between_classes_of_the_labels_themselves():
    grid = np.random.default_rng(0).integers(0, 3, (24, 32))
    maps = {"block1": np.eye(3, dtype=np.float16)[grid]}
    tokens = LayerTokens(maps, {"block1": 16.0}, (384, 512))
    labels = np.kron(grid, np.ones((16, 16), int))
    view = look(((tokens,),), [labels], FeatureConfig(basis="classes"))[0]
    assert len(np.unique(view.pictures[0][0].reshape(-1, 3), axis=0)) == 3


def test_figures_do_not_depend_on_what_is_coloured():
    tokens = made_tokens()
    labels = np.kron(np.random.default_rng(0).integers(0, 2, (24, 32)), np.ones((16, 16), int))
    plain = look(((tokens,),), [labels])
    masked = look(((tokens,),), [labels], FeatureConfig(foreground_first=True))
    for one, other in zip(plain, masked, strict=True):
        assert_array_equal(one.figures.probe[0], other.figures.probe[0])


def test_groups_have_the_same_colours_in_all_layers():
    # Halves of the picture differ in all layers; their numbers would be random.
    tokens = made_tokens(drift=0.05)
    for each in tokens.maps.values():
        each[:, 10:] += 9
    views = look(((tokens,),), config=FeatureConfig(groups=2))
    for view in views:
        left, right = view.pictures[0][0][:, :10], view.pictures[0][0][:, 10:]
        # The larger group is the first.
        assert (left == PALETTE[1]).all()
        assert (right == PALETTE[0]).all()
    # With labels their colours are those of the classes.
    labels = np.ones((384, 512), int)
    labels[:, 160:] = 0
    named = look(((tokens,),), [1 - labels], FeatureConfig(groups=2))
    assert (named[0].pictures[0][0][:, :10] == PALETTE[0]).all()
    independent = look(((tokens,),), config=FeatureConfig(groups=2, continuous=False))
    assert difference(views, independent) == 0
    assert all(len(view.basis.explained) == 3 for view in independent)
    masked = look(((tokens,),), config=FeatureConfig(groups=2, foreground_first=True))
    assert (masked[-1].pictures[0][0][:, 12:] == 40).all()
    with pytest.raises(InvalidSettingError, match="2 to 7 groups"):
        FeatureConfig(groups=1)


def test_objects_are_no_phases():
    labels = np.arange(384 * 512).reshape(384, 512)
    with pytest.raises(InvalidSettingError, match="at most 50 classes, got 196608"):
        look(((made_tokens(),),), [labels])


def test_comparing_can_be_stopped():
    asked, tokens = [], made_tokens()
    with pytest.raises(CancelledError):
        look(((tokens,),), should_stop=lambda: asked.append(1) or len(asked) > 3)
    # Layers side by side ask for themselves; none is drawn any more.
    assert 4 <= len(asked) <= len(tokens.names)


def test_an_adapter_that_leaves_the_encoder_is_read_once(picture, make_adapter, tmp_path):
    config = AdapterConfig(encoder=(), decoder_rank=2)
    path = make_adapter(tmp_path / "decoder.safetensors", config=config)
    found = compare_layers([picture], [picture.with_adapter(path)])
    assert found.is_same
    assert found.layers[-1].figures.change == 0


# ------------------------------------------------------------------ similarity


def test_similarity_is_the_cosine():
    tokens = made_tokens().maps["block1"]
    found = similarity(tokens, (3, 7))
    x = tokens.astype(np.float64)
    x = x - x.mean(axis=(0, 1))
    expected = (x @ x[3, 7]) / np.linalg.norm(x, axis=-1) / np.linalg.norm(x[3, 7])
    assert_allclose(found, expected, atol=1e-4)
    assert found[3, 7] == pytest.approx(1, abs=1e-5)
    assert_allclose(similarity(unit_tokens(tokens), (3, 7)), found, atol=1e-6)
