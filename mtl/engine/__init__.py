"""One engine for everything that trains: the loop, evaluation, selection, resume, events.

Stage one, stage two and joint training differ in what is attached to the frozen encoder and in
which batches feed it (:class:`Trainable`, :class:`Feed`); the road is the same.
"""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.engine.attached import Attached, Group, Stage, Trainable
    from mtl.engine.device import Device, open_device
    from mtl.engine.evaluation import EvalSet, Evaluation, evaluate
    from mtl.engine.feed import Feed, TaskFeed
    from mtl.engine.folder import RunFolder
    from mtl.engine.loop import Job, Outcome, train
    from mtl.engine.settings import RunSettings, Training

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "attached": ["Trainable", "Attached", "Group", "Stage"],
        "device": ["Device", "open_device"],
        "evaluation": ["EvalSet", "Evaluation", "evaluate"],
        "feed": ["Feed", "TaskFeed"],
        "folder": ["RunFolder"],
        "loop": ["Job", "Outcome", "train"],
        "settings": ["RunSettings", "Training"],
    },
)
