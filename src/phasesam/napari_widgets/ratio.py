"""The *Phase ratio* dock: sliders that the map of phases obeys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

from phasesam.core.errors import PhaseSAMError, UnknownModelError, UnsupportedViewError
from phasesam.core.ratio_shares import PhaseShares
from phasesam.engines.phase_hints import PhaseHints, takes_ratio
from phasesam.engines.semantic import PhaseMapConfig
from phasesam.models.registry import get_spec
from phasesam.napari_widgets.keys import bind_keys
from phasesam.napari_widgets.model_status import manager_watch
from phasesam.napari_widgets.phase_models import NO_PHASE_MODEL, class_colours
from phasesam.napari_widgets.phase_run import run_on
from phasesam.napari_widgets.planes import spatial_shape
from phasesam.napari_widgets.ratio_body import RatioBody
from phasesam.napari_widgets.ratio_plane import MappedPlane
from phasesam.napari_widgets.ratio_run import RatioAnswer, RatioGuides, RatioTask, guide_job
from phasesam.napari_widgets.ratio_settings import RatioSettings
from phasesam.napari_widgets.ratio_shown import show_answer, shown_name
from phasesam.napari_widgets.ratio_stack import StackAnswer, show_stack, stack_job
from phasesam.napari_widgets.ratio_words import plausibility, request_note, request_text
from phasesam.napari_widgets.strength_row import AdapterOnModel
from phasesam.napari_widgets.workers import Failure, Lane
from phasesam.session.ratio_sheet import WHOLE, RatioSheet

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image
    from qtpy.QtWidgets import QWidget

    from phasesam.models.adapter_card import AdapterCard
    from phasesam.models.adapter_store import AdapterEntry


class RatioDock(RatioBody):
    """Map the phases of a plane, say how much of each there is, see what follows.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the dock sits in; napari fills this in.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self._lane = Lane(self, drop_older=False)
        self.settings = RatioSettings(self, self._on_config)
        self._connect()
        self.refresh()
        self._on_model()

    def _connect(self) -> None:
        self.adapters.activated.connect(lambda _index: self._show())
        self.map_button.clicked.connect(lambda *_: self.map_phases())
        self.tell_button.clicked.connect(lambda *_: self.map_phases(told=True))
        self.stack_button.clicked.connect(lambda *_: self.solve_stack())
        self.rows.edited.connect(self._on_edited)
        self.rows.said.connect(self.show_result)
        self.regions.chosen.connect(self._show_shares)
        self.regions.changed.connect(self._on_regions)
        self.presets.chosen.connect(self._on_preset)
        self.presets.failed.connect(self.show_error)
        self.before_button.toggled.connect(lambda _on: self._show_map(reveals=True))
        self.undo_button.clicked.connect(lambda *_: self.undo())
        self.redo_button.clicked.connect(lambda *_: self.redo())
        self.results.asked.connect(self._keep)
        self.results.said.connect(self.show_result)
        self.results.failed.connect(self.show_error)
        self.results.margin.toggled.connect(lambda _on: self._solve(reveals=True))
        before = self.before_button.click
        bind_keys(self, {"undo": self.undo, "redo": self.redo, "before_after": before})
        manager_watch().catalogue_changed.connect(self.refresh)
        self.subscriptions.connect(self.state.events.model_changed, self._on_model)
        self.subscriptions.connect(self.state.events.image_changed, self._show)
        self.subscriptions.connect(self.state.events.data_replaced, self._on_data_replaced)
        self.subscriptions.connect(self.viewer.dims.events.current_step, self._show)

    # ------------------------------------------------------------------ what is there

    def refresh(self) -> None:
        """List the adapters anew."""
        self._choice.refresh()
        self._show()

    def choose(self, name: str) -> None:
        """Choose an adapter by its name, if it maps phases."""
        if self._choice.choose(name):
            self._show()

    def _on_data_replaced(self, layer: Image, _resized: bool) -> None:
        """Let go of a map of pixels that are gone, and of one that is being made of them."""
        if layer is self._task_layer:
            self.cancel()
        is_mapped = self._mapped is not None and self._mapped.image() is layer
        if is_mapped:
            self._mapped = None
            self.show_result(f"{layer.name} holds other data now: map its phases again.")
        self._show()

    def _on_model(self, _name: str = "") -> None:
        if self.state.adapter is not None:
            self.choose(self.state.adapter)

    def _show(self, _event: Any = None) -> None:
        """Show what can be done with image, plane and adapter as they are."""
        if not self.state.has_viewer:
            return
        chosen, image, mapped = self._choice.chosen, self.state.image_layer, self.mapped
        self.hint.setVisible(chosen is None)
        self.rows.setVisible(chosen is not None)
        if chosen is not None and mapped is None:
            self.rows.set_phases(chosen[1].classes, class_colours(chosen[1]))
        self.regions.set_image(image if mapped else None, mapped.plane if mapped else ())
        self.presets.set_phases(mapped.card.classes if mapped else ())
        self.stack_button.setVisible(image is not None and image.ndim > 2)
        self.tell_button.setVisible(chosen is not None and takes_ratio(chosen[1]))
        self.map_button.setEnabled(chosen is not None and image is not None and not self.running)
        if mapped is None:
            self._answer = None
            self.verdict.setText("")
        elif self._answer is None:
            self._solve()
        self._show_shares()

    def _show_shares(self) -> None:
        mapped = self.mapped
        region = self.regions.current
        self.rows.set_shares(None if mapped is None else mapped.sheet.shares(region))
        self._show_now()
        sheet = None if mapped is None else mapped.sheet
        # The network takes shares of the whole plane.
        whole = sheet is not None and sheet.asked == (WHOLE,)
        self.tell_button.setEnabled(whole and not self.running)
        is_plain = whole and self.regions.numbers() is None
        self.stack_button.setEnabled(is_plain and not self.running)
        self.undo_button.setEnabled(sheet is not None and sheet.can_undo)
        self.redo_button.setEnabled(sheet is not None and sheet.can_redo)
        there = mapped is not None and self._answer is not None
        self.before_button.setEnabled(there)
        self.results.set_ready(there)

    # ------------------------------------------------------------------ mapping

    def map_phases(self, *, told: bool = False) -> None:
        """Map the plane in view in the background.

        Parameters
        ----------
        told : bool
            Whether the network is told the shares that are asked for; these are kept.
        """
        image, chosen = self.state.image_layer, self._look_again()
        if image is None or chosen is None:
            return
        entry, card = chosen
        before = self.mapped if told else None
        sheet = RatioSheet(card.classes) if before is None else before.sheet
        query = sheet.query() if told else None
        hints = None if query is None else PhaseHints(query.fractions[WHOLE], query.errors[WHOLE])
        words = "" if hints is None else request_text(sheet.shares(WHOLE))
        try:
            get_spec(card.base)
            self.state.choose_model(card.base, entry.name)
            if hints is not None:
                hints.check(card)
            on = AdapterOnModel(card.base, entry.name)
            run = run_on(self.state, image, on, PhaseMapConfig())
        except PhaseSAMError as error:
            self.show_error(str(error), about_view=isinstance(error, UnsupportedViewError))
            return

        def done(guides: RatioGuides) -> None:
            plane = run.planes[0]
            self._mapped = MappedPlane(
                ref(image), plane, run.data, entry.name, card, guides, sheet, words
            )
            self._answer = None
            self._reveal()
            how = "" if hints is None else " with these shares"
            self.show_result(f"Mapped{how}. Move a slider, or type a share.")
            self._show()

        self.start(
            guide_job(run, self.settings.config, hints),
            title="Mapping phases",
            on_done=done,
            on_failed=lambda _failure: self._show(),
            on_cancelled=self._show,
            layer=image,
        )
        self._show()

    def _look_again(self) -> tuple[AdapterEntry, AdapterCard] | None:
        """Look at adapter and image as they are now, and say what is missing."""
        try:
            chosen = self._choice.look_again()
            problem = NO_PHASE_MODEL if chosen is None else ""
        except UnknownModelError as error:
            chosen, problem = None, str(error)
        self._show()
        if self.state.image_layer is None:
            problem = problem or "Open an image first."
        if problem:
            self.show_error(problem)
        return chosen

    def solve_stack(self) -> None:
        """Map all planes and give the stack as a whole the shares that are asked for."""
        if self._look_again() is None:
            return
        mapped = self.mapped
        image, query = (None, None) if mapped is None else (mapped.image(), mapped.sheet.query())
        if mapped is None or image is None or query is None or WHOLE not in query.fractions:
            self.show_error("Map a plane and ask for shares first.")
            return
        if self.settings.config.needs_planes:
            self.show_error(
                "Smallest region and Fewest changes work plane by plane: not for a stack."
            )
            return
        on = AdapterOnModel(mapped.card.base, mapped.adapter)
        shares = mapped.sheet.shares(WHOLE)
        planes = tuple(np.ndindex(spatial_shape(image)[:-2]))
        run = run_on(self.state, image, on, PhaseMapConfig(), planes=planes)

        def done(answer: StackAnswer) -> None:
            self.show_result(show_stack(answer, (image, mapped, shares), self.layers, self.results))
            self._show()

        self.start(
            stack_job(run, self.settings.config, query),
            title="Mapping the stack",
            on_done=done,
            on_failed=lambda _failure: self._show(),
            on_cancelled=self._show,
            layer=image,
        )
        self._show()

    def _on_config(self) -> None:
        mapped = self.mapped
        config = self.settings.config
        if mapped is not None and mapped.guides.guide.config != config:
            mapped.guides = mapped.guides.with_config(config)
            self._solve(reveals=True)

    # ------------------------------------------------------------------ asking

    def _on_edited(self, shares: PhaseShares, goes_on: bool) -> None:
        mapped = self.mapped
        if mapped is not None:
            mapped.sheet.ask(self.regions.current, shares, goes_on=goes_on)
            self.show_result(request_note(shares))
            self._solve(coarse=goes_on, reveals=True)

    def _on_preset(self, shares: PhaseShares | None) -> None:
        """Take shares from somewhere else; None asks for nothing any more."""
        if shares is not None:
            self._on_edited(shares, False)
        elif self.mapped is not None:
            self.mapped.sheet.forget(self.regions.current)
            self._solve(reveals=True)

    def _on_regions(self) -> None:
        self._show_shares()
        if self.mapped is not None:
            self._solve(reveals=True)

    def undo(self) -> None:
        """Take the last change of the shares back."""
        mapped = self.mapped
        if mapped is not None and mapped.sheet.undo():
            self._solve(reveals=True)

    def redo(self) -> None:
        """Do it again."""
        mapped = self.mapped
        if mapped is not None and mapped.sheet.redo():
            self._solve(reveals=True)

    def _solve(self, *, coarse: bool = False, reveals: bool = False) -> None:
        """Solve what is asked; while a slider moves, coarsely.

        It ``reveals`` the map of the plane where that of the stack is shown.
        """
        mapped = self.mapped
        if mapped is None:
            return
        if reveals:
            self._reveal()
        numbers = self.regions.numbers()
        query = mapped.sheet.query(self.regions.present())
        task = RatioTask(mapped.guides, query, numbers, coarse, self.results.margin.isChecked())
        self._lane.submit(
            lambda _progress, _stop: task.answer(),
            lambda answer: self._on_answer(mapped, answer),
            self._on_failed,
            at_once=task.is_quick,
        )

    def _on_failed(self, failure: Failure) -> None:
        self.show_error(failure.message, details=failure.details)
        self._show_shares()

    def _on_answer(self, mapped: MappedPlane, answer: RatioAnswer) -> None:
        if mapped is not self.mapped:
            return
        mapped.sheet.own = answer.own
        self._answer = answer
        self.verdict.setText(plausibility(answer))
        if not answer.is_coarse:
            image, query = mapped.image(), answer.task.query
            if image is not None and query is not None:
                mapped.sheet.show_achieved(query, answer.achieved)
                self.results.note(image.name, mapped, answer)
            self._show_shares()
        self._show_map()

    def _reveal(self) -> None:
        image = self.state.image_layer
        if image is not None:
            self.layers.reveal(image)

    def _show_map(self, *, reveals: bool = False) -> None:
        if reveals:
            self._reveal()
        mapped, answer, image = self.mapped, self._answer, self.state.image_layer
        if mapped is not None and answer is not None and image is not None:
            before = self.before_button.isChecked()
            show_answer(self.layers, image, mapped, answer, before=before)
        self._show_now()

    def _keep(self, compares: bool) -> None:
        answer, image = self._answer, self.state.image_layer
        if self.mapped is not None and answer is not None and image is not None:
            before, region = self.before_button.isChecked(), self.regions.current
            name = shown_name(self.layers, image, answer, region, before=before)
            self.results.keep(image, name, compares=compares)
