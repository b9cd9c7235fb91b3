"""A stored entry that answers: new rows, the splits of its task, other libraries' folders."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.compose.groups import names_of
from mtl.data.new_rows import NEW, new_rows
from mtl.engine import EvalSet, evaluate, open_device
from mtl.engine.device import take_threads
from mtl.engine.evaluation import answer
from mtl.engine.progress import progress as showing
from mtl.errors import RequestError, unknown
from mtl.predict.answers import Answers, of_logits, unseen_text
from mtl.predict.tables import to_table
from mtl.runs.loading import answer_passes, base_of, data_of_entry, load, precision_of
from mtl.runs.recorded import recorded_spec, task_of
from mtl.runs.verify import parts_of, same_data
from mtl.zoo.composition import gate_column
from mtl.zoo.schema import joint_sections

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.data import TaskData
    from mtl.engine import Device
    from mtl.runs import Loaded, Workspace
    from mtl.tasks import TaskSpec
    from mtl.zoo import Entry

_log = logging.getLogger("mtl")


@dataclass
class Model:
    """An entry of the zoo, loaded.

    Rows are answered as the entry's own test rows were: with the templates that its manifest
    records, on as many threads, in passes of the same size. So :meth:`predict` on the rows of the
    test split gives the stored predictions, bit for bit on the machine that trained it.

    Attributes:
        entry: what was loaded.
        precision: ``fp32`` or ``bf16`` to compute in another one than the entry's own, which "" is.
    """

    entry: Entry
    workspace: Workspace
    backbone: Backbone
    precision: str = ""
    _specs: dict[str, TaskSpec] = field(default_factory=dict, repr=False)

    @property
    def tasks(self) -> list[str]:
        """Ids of the tasks that it answers; several only of a joint model."""
        manifest = self.entry.manifest
        if manifest.kind != "joint":
            return [str(manifest.task["id"])]
        return list(joint_sections(manifest.task, manifest.data, self.entry.ref))

    def spec(self, task: str | None = None) -> TaskSpec:
        """How a task is read: its templates, labels and lengths, as they were in training.

        Raises:
            RequestError: a joint model needs ``task`` named; an unknown one.
        """
        name = self._task(task)
        if name not in self._specs:
            which = name if self.entry.manifest.kind == "joint" else None
            self._specs[name] = self._recorded(which)
        return self._specs[name]

    @property
    def gate(self) -> str:
        """The column by whose values the answers differ; empty where they do not."""
        return gate_column(self.entry.manifest.method_settings)

    def unseen(self, data: TaskData) -> int:
        """How many new rows are of no group that training knew: the pooled gates answer them."""
        groups = data.splits[NEW].groups
        if groups is None:
            return 0
        known = names_of(str(self.entry.manifest.method_settings["groups"]))
        return sum(name not in known for name in groups)

    @cached_property
    def loaded(self) -> Loaded:
        """The frozen network, on its device."""
        found = load(self.entry, self.workspace.zoo, self.backbone)
        found.network.to(self.device.torch_device)
        return found

    @property
    def device(self) -> Device:
        """Where it computes: in the entry's threads, and its precision unless told another.

        Threads are the process': they are set anew, since another model may have had others.
        """
        take_threads(self._opened, self.backbone.base.hidden_size, self._threads)
        return self._opened

    @cached_property
    def _opened(self) -> Device:
        hidden = self.backbone.base.hidden_size
        precision = self.precision or precision_of(self.entry)
        return open_device(precision, hidden_size=hidden, threads=self._threads)

    @property
    def _threads(self) -> int | None:
        threads = self.entry.manifest.training.get("threads")
        return threads if isinstance(threads, int) else None

    def predict(
        self,
        inputs: Any,
        *,
        scores: bool = False,
        task: str | None = None,
        progress: bool | None = None,
    ) -> Any:
        """Answer new rows.

        Args:
            inputs: rows: a list of texts, tuples or dicts, a dict of columns, a frame of pandas or
                polars, a ``datasets.Dataset`` or a pyarrow table. Labels are not needed.
            scores: give :class:`Answers`, with scores and logits, instead of labels alone.
            task: which of the tasks of a joint model.
            progress: show a bar; None: where a terminal watches.

        Returns:
            A list with a label per row (see :attr:`Answers.labels`), or :class:`Answers`. Where
            the task's row function makes several rows of one (candidates of ReCoRD), a label per
            row that it makes.

        Raises:
            RequestError: rows that the task cannot read; says what it reads.
        """
        spec = self.spec(task)
        with showing(progress):
            data = new_rows(spec, to_table(spec, inputs), gate=self.gate)
            answers = self.answer(data)
        unseen = self.unseen(data)
        if unseen:
            _log.warning("%s", unseen_text(self.gate, unseen, len(answers)))
        return answers if scores else list(answers.labels)

    def predict_file(self, source: str | Path, target: str | Path, **options: Any) -> Path:
        """Answer the rows of a file into another one, with a column ``prediction`` beside theirs.

        Files larger than memory are read by pieces; what was killed goes on when called again.

        Args:
            source: ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``.
            target: likewise; it appears once it is whole.
            options: further fields of :class:`mtl.predict.job.Job` (``scores``, ``overwrite``…).

        Returns:
            ``target``.

        Raises:
            RequestError: rows that cannot be answered (names the line), or the target is there.
            RunError: it cannot be written.
        """
        from mtl.predict.job import Job, answer_file

        known = [name for name in Job.__dataclass_fields__ if name not in {"source", "target"}]
        for name in options:
            if name not in known:
                raise unknown("option of predict_file", name, known)
        answer_file(self, Job(Path(source), Path(target), **options))
        return Path(target)

    def answer(self, data: TaskData) -> Answers:
        """Answer rows that were read and rendered already (:func:`mtl.data.new_rows.new_rows`)."""
        spec = data.spec
        encoded = self.backbone.encode(data, NEW)
        found = EvalSet(spec, encoded)
        _, logits = answer(self.loaded.attached, found, self.device, answer_passes(self.entry))
        return of_logits(spec, logits, encoded)

    def evaluate(
        self, split: str = "test", *, task: str | None = None, progress: bool | None = None
    ) -> dict[str, dict[str, Any]]:
        """Metric → ``{"value", "stderr", "n", "caveat"}`` on a split of the task's own data.

        The data are read again from where they lie on this machine, and must be those of the run.

        Raises:
            RequestError: an unknown split, or data that cannot be had or are others than then.
        """
        data = self._data(task)
        if split not in data.splits:
            raise unknown(f"split of {data.spec.id}", split, data.splits)
        with showing(progress):
            encoded = self.backbone.encode(data, split, self.workspace.cache)
            passes = answer_passes(self.entry)
            found = evaluate(self.loaded.attached, EvalSet(data.spec, encoded), self.device, passes)
        return found.summary()

    def export(self, folder: str | Path, *, to: str = "adapters", **options: Any) -> dict[str, Any]:
        """Write it as one adapter of stock ``adapters`` or ``peft``, with the proof.

        Args:
            folder: absent or empty.
            to: the library that is to load it.
            options: further fields of :class:`mtl.export.ExportOptions` (``prune``, ``evaluate``…).

        Returns:
            The record of the export: what was folded, the proof, scores.

        Raises:
            RequestError: it does not fold (with the nearest alternative), or the place is taken.
        """
        from mtl.export import ExportOptions, export_entry

        known = [name for name in ExportOptions.__dataclass_fields__ if name != "form"]
        for name in options:
            if name not in known:
                raise unknown("option of export", name, known)
        return export_entry(
            self.entry,
            Path(folder),
            workspace=self.workspace,
            backbone=self.backbone,
            options=ExportOptions(to, **options),
        )

    def _data(self, task: str | None) -> TaskData:
        """The data that the entry was trained and tested on, read again."""
        if self.entry.manifest.kind != "joint":
            return data_of_entry(self.entry, self.workspace)
        name = self._task(task)
        (part,) = (part for part in parts_of(self.entry) if part.task == name)
        spec = task_of(self.entry, self.workspace, name)
        return same_data(self.entry, spec, self.workspace, part)

    def _task(self, task: str | None) -> str:
        tasks = self.tasks
        if task is None and len(tasks) == 1:
            return tasks[0]
        found = [name for name in tasks if task in {name, name.rpartition("/")[2]}]
        if len(found) == 1:
            return found[0]
        if task is None:
            raise RequestError(
                f"{self.entry.ref} answers {len(tasks)} tasks ({', '.join(tasks)}): name one with "
                "task=…."
            )
        raise unknown(f"task of {self.entry.ref}", task, tasks)

    def _recorded(self, task: str | None) -> TaskSpec:
        try:
            return recorded_spec(self.entry, task)
        except RequestError:  # an entry of before manifests told it: the catalogue may know
            return task_of(self.entry, self.workspace, task)


def open_model(
    entry: Entry,
    workspace: Workspace,
    model: str | None = None,
    load_base: Callable[[str], Backbone] | None = None,
    precision: str = "",
) -> Model:
    """Load the base of ``entry`` and the entry on it.

    Args:
        model: the base, where the entry does not say what can be found here.
        load_base: what loads a base; None: :func:`mtl.backbone.load_backbone`.
        precision: as :class:`Model` has it.

    Raises:
        RequestError: nobody says where the base is, another base than the entry's, or a method
            that this version does not know.
        ZooError: files of the entry are damaged.
    """
    from mtl.backbone import load_backbone
    from mtl.runs.loading import check_base

    backbone = (load_base or load_backbone)(base_of(entry, model))
    check_base(entry, backbone.base, head=True)
    found = Model(entry, workspace, backbone, precision)
    _ = found.loaded
    return found
