"""Which way of using a phase ratio is best: networks and solver, tested by specimen.

Networks are trained on each fold. Then every image is mapped by the network that has not learnt
from its specimen, told what the method says, and solved where the method says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidSettingError
from phasesam.core.ratio import RatioSolver
from phasesam.core.ratio_regularity import reluctant
from phasesam.engines.phase_hints import PhaseHints
from phasesam.engines.segmenter import Segmenter
from phasesam.engines.semantic import WindowEmbeddings, segment_classes
from phasesam.evaluation.ablation import Stopper
from phasesam.evaluation.adapter_scores import Watch
from phasesam.evaluation.phase_maps import PhaseMapScores, score_phase_map
from phasesam.evaluation.ratio_requests import Fractions, oracle_dice
from phasesam.models.adapter_card import read_card
from phasesam.models.adapter_store import content_hash
from phasesam.training.class_hints import amounts, class_boxes
from phasesam.training.dataset import LabelledImage, TrainingData
from phasesam.training.feature_store import shared_features
from phasesam.training.fine_tuning import TrainingSettings, train
from phasesam.training.label_values import UNLABELLED

NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "boxes": {"class_boxes": True},
    "v0": {"ratio": "global", "class_boxes": True},
    "v1": {"ratio": "spatial"},
    "v2": {"ratio": "located"},
}
"""What the networks take, as changes of an adapter's settings."""

_LEAST_PROBABILITY = 1e-30


@dataclass(frozen=True)
class Method:
    """One way of using a phase ratio.

    Attributes
    ----------
    name : str
        For tables.
    network : str
        One of `NETWORKS`.
    told : bool
        Whether the network is told the ratio.
    boxes : bool
        Whether it is told a box around the largest region of each class.
    solver : {"none", "exact", "trust", "fewest"}
        Whether the map then has the amounts exactly, as far as they deserve trust, or exactly
        and with as few changes as they allow.
    taught : {"none", "own", "ratio"}
        Whether the network has first learnt from the images of the specimen, without their
        masks: from its own maps, or from maps that have the amounts.
    """

    name: str
    network: str
    told: bool = False
    boxes: bool = False
    solver: str = "none"
    taught: str = "none"

    @property
    def uses_ratio(self) -> bool:
        """Whether its map depends on the request."""
        return self.hears_ratio or self.solver != "none"

    @property
    def hears_ratio(self) -> bool:
        """Whether its network depends on the request, or is told it."""
        return self.told or self.taught == "ratio"


METHODS = (
    Method("no guidance", "plain"),
    Method("box", "boxes", boxes=True),
    Method("ratio v0", "v0", told=True),
    Method("ratio v0 + box", "v0", told=True, boxes=True),
    Method("ratio v1", "v1", told=True),
    Method("v2, told nothing", "v2"),
    Method("ratio v2", "v2", told=True),
    Method("v2 + exact", "v2", told=True, solver="exact"),
    Method("v2 + trust", "v2", told=True, solver="trust"),
    Method("solver alone", "plain", solver="exact"),
    Method("solver alone, trust", "plain", solver="trust"),
    Method("solver alone, fewest changes", "plain", solver="fewest"),
    Method("self-taught", "plain", taught="own"),
    Method("taught + exact", "plain", taught="ratio", solver="exact"),
    Method("taught + trust", "plain", taught="ratio", solver="trust"),
)
"""Those of the tables; the first is what the others are compared with."""


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked about an image.

    Attributes
    ----------
    name : str
        For tables.
    wanted : (k,) array
        Fractions.
    error : float
        Standard error that the network and the trusting solver are told.
    doubt : float
        Standard error that those methods are told instead that trust: of requests that are wrong,
        as far as a careful user would go.
    draw : int
        Number of the draw, of requests drawn by chance.
    """

    name: str
    wanted: Fractions
    error: float = 0.0
    doubt: float = 0.0
    draw: int = 0

    def error_for(self, method: Method) -> float:
        """Return the standard error that a method is told."""
        return self.doubt if method.solver == "trust" and self.doubt else self.error


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a request.

    Attributes
    ----------
    image, specimen : str
        Where.
    method, request : str
        How.
    draw : int
        Of the request.
    error : float
        Standard error that was told.
    wanted, achieved : (k,) array
        Fractions asked for and found, of the labelled area.
    scores : PhaseMapScores
        Against the truth.
    oracle : float
        Best Dice of any map with the wanted amounts.
    labels : (h, w) array or None
        The map, where it was kept.
    """

    image: str
    specimen: str
    method: str
    request: str
    draw: int
    error: float
    wanted: Fractions
    achieved: Fractions
    scores: PhaseMapScores
    oracle: float
    labels: NDArray[np.integer[Any]] | None = None


def train_networks(
    data: TrainingData,
    folder: Path,
    names: Sequence[str],
    settings: TrainingSettings,
    watch: Watch | None = None,
) -> dict[str, Path]:
    """Train the networks of one fold; what is in the folder already is not done again.

    Parameters
    ----------
    data : TrainingData
        With classes; images of the split "test" are left alone.
    folder : Path
        One run folder per network goes there.
    names : sequence of str
        Some of `NETWORKS`.
    settings : TrainingSettings
        Of all; the networks differ in what they take.
    watch : Watch, optional
        Who may stop it.

    Returns
    -------
    dict of str to Path
        Adapter files.

    Raises
    ------
    InvalidSettingError
        If a network is not known.
    """
    unknown = [name for name in names if name not in NETWORKS]
    if unknown:
        raise InvalidSettingError(
            f"expected networks of {', '.join(NETWORKS)}, got {', '.join(unknown)}"
        )
    found, stopper = {}, Stopper(watch or Watch())
    # They differ in what they are told, not in what the frozen part of the encoder sees.
    with shared_features(folder) as features:
        for name in names:
            adapter = replace(settings.recipe.adapter, **{**_NO_HINTS, **NETWORKS[name]})
            chosen = replace(settings, recipe=replace(settings.recipe, adapter=adapter))
            # Goes on where it was; a finished one ends at once.
            done = train(
                data, folder / name, chosen, resume=True, callbacks=[stopper], features=features
            )
            found[name] = done.path
    return found


_NO_HINTS = {"ratio": "none", "class_boxes": False}


@dataclass(frozen=True, eq=False)
class Networks:
    """Who is asked, and how.

    Attributes
    ----------
    model : str
        Name of the base in the registry.
    adapters : mapping of str to Path
        Adapters by the names of `NETWORKS`.
    orientations : {1, 2, 4}
        How often a network looks at each window; see `PhaseMapConfig`.
    teach : callable or None
        ``teach(adapter, image, request, method)``: the adapter after it has learnt from the
        specimen of the image; see `phasesam.evaluation.ratio_teaching`.
    """

    model: str
    adapters: Mapping[str, Path]
    orientations: int = 2
    teach: Callable[[Path, LabelledImage, Request, Method], Path] | None = None

    def adapter(self, method: Method, image: LabelledImage, request: Request) -> Path:
        """Find the adapter that a method asks about an image.

        Raises
        ------
        InvalidSettingError
            If it is to be taught, and nobody teaches.
        """
        path = self.adapters[method.network]
        if method.taught == "none":
            return path
        if self.teach is None:
            raise InvalidSettingError(f"nobody is there to teach the network of {method.name!r}")
        return self.teach(path, image, request, method)


@dataclass(eq=False)
class RatioTester:
    """Answers requests about one image with several methods.

    Parameters
    ----------
    image : LabelledImage
        With its truth.
    networks : Networks
        Who is asked.
    """

    image: LabelledImage
    networks: Networks
    _kept: dict[str, WindowEmbeddings] = field(default_factory=dict)
    _known: dict[tuple[Any, ...], NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rgb, self.truth = self.image.rgb(), self.image.label_array()
        self.n_classes = len(read_card(next(iter(self.networks.adapters.values()))).classes)
        self.true_fractions: Fractions = amounts(self.truth, self.n_classes)

    def answer(self, method: Method, request: Request, *, keep: bool = False) -> Outcome:
        """Map the image, score the map.

        Parameters
        ----------
        method : Method
            How.
        request : Request
            What is asked; methods that use no ratio do not hear it.
        keep : bool
            Whether the map is part of the outcome.
        """
        logits = self._logits(method, request)
        known = self.truth >= 0
        labels = logits.argmax(0).astype(np.int32)
        if method.solver != "none":
            errors = request.error_for(method) if method.solver == "trust" else 0.0
            # Amounts are those of the labelled area; elsewhere nobody can say what is true.
            solver = RatioSolver(logits[:, known])
            if method.solver == "fewest":
                solver = reluctant(solver)
            labels[known] = solver.solve(request.wanted.tolist(), errors).labels
        achieved = amounts(np.where(known, labels, UNLABELLED), self.n_classes)
        return Outcome(
            self.image.name, self.image.specimen, method.name, request.name, request.draw,
            request.error_for(method), request.wanted, achieved,
            score_phase_map(labels, self.truth, self.n_classes),
            oracle_dice(self.true_fractions, request.wanted), labels if keep else None,
        )  # fmt: skip

    def _logits(self, method: Method, request: Request) -> NDArray[np.float32]:
        """Ask the network, once whatever the solver does."""
        heard = None
        if method.hears_ratio:
            heard = request.wanted.tobytes(), request.error_for(method)
        key = (method.network, method.taught, method.boxes, heard)
        if key not in self._known:
            if heard is not None:
                # Of the request before nothing is asked any more; maps are large.
                self._known = {
                    other: logits
                    for other, logits in self._known.items()
                    if other[-1] in (None, heard) or other[-1][0] == heard[0]
                }
            self._known[key] = self._mapped(method, request)
        return self._known[key]

    def _mapped(self, method: Method, request: Request) -> NDArray[np.float32]:
        corners = class_boxes(self.truth, self.n_classes) if method.boxes else ()
        boxes = {
            k: (int(y0), int(x0), int(y1) + 1, int(x1) + 1)
            for k, (x0, y0, x1, y1) in enumerate(corners)
            if np.isfinite(x0)
        }
        shares = request.wanted.tolist() if method.told else None
        hints = PhaseHints(shares, request.error_for(method) if method.told else None, boxes)
        path = self.networks.adapter(method, self.image, request)
        found = segment_classes(
            Segmenter(self.rgb, self.networks.model, adapter=str(path), exclude_data_bar=False),
            orientations=self.networks.orientations,
            keep_probabilities=True,
            hints=hints,
            embeddings=self._embeddings(path, method),
        )
        assert found.probabilities is not None
        return np.log(np.maximum(found.probabilities, _LEAST_PROBABILITY))

    def _embeddings(self, path: Path, method: Method) -> WindowEmbeddings | None:
        """Find what the encoder of an adapter has seen; None if nobody will ask for it again."""
        # Those with the encoder of the base see the same. What each request teaches is new.
        encoder = content_hash(path) if read_card(path).config.encoder else ""
        if encoder and method.taught == "ratio":
            return None
        return self._kept.setdefault(encoder, {})


def ask_all(
    images: Sequence[LabelledImage],
    networks: Networks,
    methods: Sequence[Method],
    requests: Callable[[Fractions], Sequence[Request]],
    watch: Watch | None = None,
) -> list[Outcome]:
    """Ask all methods about all images.

    Parameters
    ----------
    images : sequence of LabelledImage
        Of one fold's test.
    networks : Networks
        Of that fold.
    methods : sequence of Method
        How.
    requests : callable
        From the true fractions of an image to what is asked.
    watch : Watch, optional
        Who follows it, in images.
    """
    watch = watch or Watch()
    found: list[Outcome] = []
    for done, image in enumerate(images):
        watch.step(done, len(images))
        tester = RatioTester(image, networks)
        for request in requests(tester.true_fractions):
            # Those that do not hear the request are asked once, and scored beside it again.
            found += [tester.answer(method, request) for method in methods]
    watch.step(len(images), len(images))
    return found


def networks_of(methods: Sequence[Method]) -> tuple[str, ...]:
    """Networks that methods need, each once."""
    return tuple(dict.fromkeys(method.network for method in methods))
