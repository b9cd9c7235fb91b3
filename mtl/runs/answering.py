"""What an adapter from elsewhere answers on a task's dev and test splits, as an entry stores it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.engine import Attached, EvalSet, RunSettings, evaluate, open_device
from mtl.engine.passes import eval_passes
from mtl.files import finite
from mtl.runs.recorded import remember_task
from mtl.runs.sections import data_section
from mtl.runs.workspace import load_task_data
from mtl.zoo import write_predictions
from mtl.zoo.names import is_safe_name, predictions_file

if TYPE_CHECKING:
    from mtl.backbone import Backbone, Network
    from mtl.engine import Evaluation
    from mtl.runs.workspace import Workspace
    from mtl.tasks import TaskSpec


@dataclass(frozen=True)
class Answers:
    """Answers on dev and all test splits.

    Attributes:
        metrics, data: sections of the manifest.
        training: what of that section the answers depend on.
        splits: split → evaluation.
    """

    metrics: dict[str, Any]
    data: dict[str, Any]
    training: dict[str, Any]
    splits: dict[str, Evaluation]

    def save(self, folder: Path) -> None:
        """Write the predictions."""
        for split, found in self.splits.items():
            if is_safe_name(f"predictions-{split}"):
                write_predictions(
                    folder,
                    predictions_file(split),
                    found.row,
                    found.label,
                    found.prediction,
                    found.scores,
                )


def answers_of(
    network: Network,
    spec: TaskSpec,
    backbone: Backbone,
    workspace: Workspace,
    protocol: str | None,
) -> Answers:
    """Answer a task's splits with ``network``, which stays as it is.

    Raises:
        RequestError, RunError: the data cannot be had.
    """
    settings = RunSettings()
    data = load_task_data(spec, workspace, protocol or "official", settings)
    device = open_device("fp32", hidden_size=backbone.base.hidden_size)
    passes = eval_passes(settings, device.torch_device)
    attached = Attached(network.eval().to(device.torch_device), {}, [])
    found = {}
    for split in sorted(data.splits, key=lambda name: name == "dev"):
        if split != "train":
            tokens = backbone.encode(data, split, workspace.cache)
            found[split] = evaluate(attached, EvalSet(spec, tokens), device, passes)
    network.to("cpu")
    remember_task(data, workspace)
    described = device.describe()
    training = {key: described[key] for key in ("device", "precision", "threads")}
    section = data_section(data)
    section["splits"]["train"] = ""  # on which rows it was trained, nobody knows
    section["sizes"].pop("train", None)
    return Answers(
        finite({split: answers.summary() for split, answers in found.items()}),
        section,
        {**training, "eval_batch_size": passes.rows, "eval_tokens": passes.tokens},
        found,
    )
