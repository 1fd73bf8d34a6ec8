"""From a prompted mask to a committed object and back: add, clear, undo, re-open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from phasesam.core.errors import PhaseSAMError, SessionError
from phasesam.core.mask_set import MaskCrop, MaskSet
from phasesam.napari_widgets.mask_picking import mask_at
from phasesam.napari_widgets.present_object import Answer, PresentObject, deepest_point
from phasesam.napari_widgets.prompt_layers import PlanePrompts

if TYPE_CHECKING:
    from napari.layers import Image
    from numpy.typing import NDArray

    from phasesam.napari_widgets.dock import Dock
    from phasesam.napari_widgets.planes import ShownPlane
    from phasesam.napari_widgets.prompting import PromptController
    from phasesam.session import ObjectRecord, SegmentationSession


class ObjectMaker:
    """Commits the object in the making, and takes committed objects out again.

    Parameters
    ----------
    dock : Dock
        Shows messages.
    controller : PromptController
        Knows the object in the making.

    Attributes
    ----------
    class_name : str
        Class of the objects added from now on.
    announces : bool
        Whether an object is selected at this moment because it was added, not by the user.
    """

    added = Signal(object, list)
    """``(image, ids)``: objects were added to the plane of the image that is shown."""

    def __init__(self, dock: Dock, controller: PromptController) -> None:
        self.class_name = ""
        self.announces = False
        self._dock = dock
        self._state = dock.state
        self._controller = controller
        self._add_when_answered = False
        controller.first_prompt_hook = self._reopens
        controller.events.answered.connect(self._on_answered)

    def add(self) -> None:
        """Commit the present object (or objects, of several boxes)."""
        present, image = self._controller.present(), self._controller.image
        if present is None or image is None:
            self._controller.plane()  # says why there is none
            return
        if present.is_empty:
            self._dock.show_result("Nothing to add yet: click on an object first.")
            return
        if present.answer is None:
            self._add_when_answered = True
            self._controller.ask()
            return
        plane = self._state.plane(image)
        masks = present.answer.masks.subset(present.chosen(self._controller.settings.scale))
        if not len(masks) or not masks.areas.any():
            self._dock.show_error("The mask is empty; add a prompt or clear (K).")
            return
        session = self._state.session(image)
        self._state.labels_layer(image)
        try:
            ids = self._commit(session, masks, plane)
        except PhaseSAMError as error:
            self._dock.show_error(str(error))
            return
        if present.reopened is not None:
            session.finish_editing(present.reopened.id)
        self._forget(image, plane)
        self.announces = True
        try:
            self._state.select_object(ids[-1] if ids else 0)
        finally:
            self.announces = False
        self.added.emit(image, ids)

    def _commit(self, session: SegmentationSession, masks: MaskSet, plane: ShownPlane) -> list[int]:
        if len(masks) == 1:
            return [
                session.commit(
                    masks.crops[0],
                    plane=plane.index,
                    score=float(masks.scores[0]),
                    class_name=self.class_name,
                    source="prompt",
                )
            ]
        return session.commit_many(
            masks,
            plane=plane.index,
            source="prompt",
            class_name=self.class_name,
            overlap="new_on_top",
        )

    def clear(self) -> None:
        """Drop the present prompts; an object that was re-opened comes back as it was."""
        present, image = self._controller.present(), self._controller.image
        if present is None or image is None:
            return
        plane = self._state.plane(image)
        record, mask = present.reopened, present.mask
        if record is None and not present.is_empty and mask is None:
            # Taken back like any other step, so that nothing is lost by a slip of the key.
            present.say(PlanePrompts())
            self._add_when_answered = False
            self._controller.restore()
            return
        self._forget(image, plane)
        if record is not None:
            self._put_back(image, record)

    def _put_back(self, image: Image, record: ObjectRecord) -> None:
        try:
            self._state.session(image).put_back(record.id)
        except SessionError as error:
            self._dock.show_error(str(error))
        else:
            self._dock.show_result(f"Object {record.id} is back as it was.")

    def undo(self) -> None:
        """Take back the last prompt of the present object, else the last step of the session."""
        present, image = self._controller.present(), self._controller.image
        if image is None or self._is_out_of_sight():
            return
        if present is not None and present.step_back():
            self._controller.restore()
            return
        if present is not None and present.reopened is not None:
            self.clear()
            return
        if present is not None and not present.is_empty:
            self._forget(image, self._state.plane(image))
        name = self._state.session(image).undo()
        self._dock.show_result(f"Undid: {name}." if name else "Nothing to undo.")
        self._controller.show()

    def redo(self) -> None:
        """Make again what was undone last."""
        present, image = self._controller.present(), self._controller.image
        if image is None or self._is_out_of_sight():
            return
        if present is not None and present.step_forward():
            self._controller.restore()
            return
        name = self._state.session(image).redo()
        self._dock.show_result(f"Redid: {name}." if name else "Nothing to redo.")
        self._controller.show()

    def _is_out_of_sight(self) -> bool:
        """Whether there are prompts that the view does not show; says so then.

        Undo would pass them over and take an object back that was added before them.
        """
        if self._controller.present() is not None or not self._controller.has_open:
            return False
        return self._controller.plane() is None

    def reopen(self, object_id: int) -> bool:
        """Take a committed object out and go on prompting it; False if that cannot be."""
        image, plane = self._controller.image, self._controller.plane()
        if image is None or plane is None:
            return False
        session = self._state.session(image)
        try:
            record = session.record(object_id)
            if record.plane != plane.index:
                raise SessionError(f"object {object_id} lies on another plane")
            self.clear()
            crop = session.object_mask(object_id)
            session.remove_for_editing(object_id)
        except SessionError as error:
            self._dock.show_error(str(error))
            return False
        self._begin_with(image, plane, crop, record)
        self._dock.show_result(
            f"Object {object_id} is open again: click to refine, N to add, K to leave it as it was."
        )
        return True

    def begin_with_mask(self, position: NDArray[np.float64]) -> None:
        """Start from the existing mask under a position of the viewer's world."""
        image, plane = self._controller.image, self._controller.plane()
        if image is None or plane is None:
            return
        found = mask_at(self._state.viewer, position, plane.shape)
        if found is None:
            self._dock.show_result("No mask here. Click on an object of any Labels layer.")
        elif found.layer is self._state.existing_labels_layer(image):
            self.reopen(found.label)
        else:
            self.clear()
            self._begin_with(image, plane, found.crop)
            self._dock.show_result("Started from this mask: click to refine, N to add, K to clear.")

    def _begin_with(
        self,
        image: Image,
        plane: ShownPlane,
        crop: MaskCrop,
        record: ObjectRecord | None = None,
    ) -> None:
        score = float("nan") if record is None else record.score
        masks = MaskSet.from_crops(plane.shape, [crop], [score])
        # A point inside goes with the mask: alone, a mask says too little to the model.
        seed = PlanePrompts(deepest_point(crop)[None], np.ones(1, np.int64))
        present = PresentObject(
            prompts=seed, answer=Answer(masks, 0.0), mask=masks.mask(0), reopened=record
        )
        self._controller.begin(image, plane, present)

    def _forget(self, image: Image, plane: ShownPlane) -> None:
        self._add_when_answered = False
        self._controller.begin(image, plane, PresentObject())

    def _on_answered(self, is_there: bool) -> None:
        wanted, self._add_when_answered = self._add_when_answered, False
        if wanted and is_there:
            self.add()

    def _reopens(self, image: Image, plane: ShownPlane, prompts: PlanePrompts) -> bool:
        """Re-open the committed object that a first negative click lies on."""
        if prompts.count != 1 or len(prompts.points) != 1 or prompts.labels[0] != 0:
            return False
        y, x = np.rint(prompts.points[0]).astype(int)
        object_id = int(self._state.session(image).labels[plane.index][y, x])
        if not object_id or not self.reopen(object_id):
            return False
        present = self._controller.present()
        if present is not None:
            both = PlanePrompts(
                np.concatenate([present.prompts.points, prompts.points]),
                np.array([1, 0], dtype=np.int64),
                present.prompts.boxes,
            )
            self._controller.layers(image).write(both, plane)
            present.say(both)
            self._controller.ask()
        return True
