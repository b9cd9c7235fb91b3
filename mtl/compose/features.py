"""What scores look at: features of at most 2,000 rows per task, one frozen pass each, cached.

Four passes exist: the plain base over a task's rows (vectors of the first token and their mean),
the base with a source's adapter over the target's rows, the same over the source's own rows (for
its embedding-space map), and the plain base with gradients (TaskEmb). Each is kept in a file whose
name is a hash of everything that decides its content: weights, tokenizer, rows, limit, version,
and the precision where it is not fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mtl.backbone.arch import arch_of
from mtl.backbone.network import pooled
from mtl.compose.feature_head import fit_head, row_losses
from mtl.data import eval_order
from mtl.engine.feed import to_device
from mtl.engine.passes import usual_passes
from mtl.engine.vectors import Arrays, inputs_of, kept, token_vectors
from mtl.errors import MtlError
from mtl.files import sha256_json
from mtl.graph.scores import Candidate, TaskView, Unscorable
from mtl.runs.loading import load, load_adapter_entry
from mtl.tasks import KINDS

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.data import Encoded, TaskData
    from mtl.engine import Device
    from mtl.runs import Workspace
    from mtl.zoo import Entry

VERSION = 2
"""Raised when the same inputs would give other features."""
LIMIT = 2000
SEED = 0


def pick_rows(count: int, limit: int = LIMIT) -> np.ndarray:
    """The rows that are looked at: all, or ``limit`` of them drawn once, in their order."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(SEED).permutation(count)[:limit])


def subset(data: TaskData, limit: int = LIMIT) -> TaskData:
    """The task with nothing but the chosen rows of its training split.

    Raises:
        Unscorable: its rows are cut into windows, so no row has a vector of its own.
    """
    if KINDS.get(data.spec.kind).windows:
        raise Unscorable(f"rows of {data.spec.kind} tasks are cut into windows")
    split = data.splits["train"]
    rows = pick_rows(len(split), limit)
    few = type(split)(
        tuple([texts[row] for row in rows] for texts in split.texts),
        split.labels[rows],
        {
            name: column[rows] if isinstance(column, np.ndarray) else [column[r] for r in rows]
            for name, column in split.table.items()
        },
    )
    mark = data.fingerprints["train"]
    if len(rows) < len(split):
        mark = sha256_json({"rows of": mark, "limit": limit, "seed": SEED})
    return replace(
        data, splits={"train": few}, fingerprints={"train": mark}, sizes={"train": len(rows)}
    )


@dataclass(frozen=True)
class Extractor:
    """Runs and caches the passes.

    Attributes:
        backbone: the base that all candidates must share.
        workspace: whose zoo holds the sources and whose cache keeps the features.
        device: where passes run, and in which precision; features of another one are others.
        limit: rows per task at most.
    """

    backbone: Backbone
    workspace: Workspace
    device: Device
    limit: int = LIMIT

    def view(self, data: TaskData, needs: set[str]) -> TaskView:
        """What is known of a task; of what costs a pass, only the fields in ``needs``.

        ``maps`` belong to an adapter, not to the task alone: see :meth:`maps`.
        """
        few = subset(data, self.limit)
        split = few.splits["train"]
        values: dict[str, Any] = {}
        kind, labels = judged(few)
        if needs & {"first", "mean"}:
            values |= self.base_vectors(few)
        if "fisher" in needs:
            values["fisher"] = {
                layer: value.astype(np.float64) for layer, value in self.fisher(few).items()
            }
        return TaskView(
            task=data.spec.id,
            kind=kind,
            texts=_texts(split.texts, data.spec.choices),
            labels=labels,
            **{name: value for name, value in values.items() if name in needs},
        )

    def candidate(
        self,
        target: TaskView,
        target_data: TaskData,
        entry: Entry,
        source_data: Callable[[], TaskData],
        needs: set[str],
        missing: Mapping[str, str],
    ) -> Candidate:
        """A source beside the target; what cannot be had is named in ``missing``.

        Args:
            source_data: gives the source task's data; called only where something needs them.
            needs: as :attr:`Score.needs`.
            missing: what of the target could not be had.
        """
        missing = dict(missing)
        fields: dict[str, Any] = {}

        def attempt(need: str, make: Callable[[], Any]) -> Any:
            try:
                return make()
            except (MtlError, Unscorable) as error:
                missing[need] = str(error).partition("\n")[0]
                return None

        of_source = {need.partition(".")[2] for need in needs if need.startswith("source.")}
        task = entry.manifest.task
        source = TaskView(task["id"], task["kind"])
        if of_source - {"maps"}:
            found = attempt("source.texts", lambda: self.view(source_data(), of_source))
            if found is None:
                reason = missing["source.texts"]
                missing |= {f"source.{name}": reason for name in of_source - {"maps"}}
            source = found or source
        if "maps" in of_source:
            source = replace(source, maps=attempt("source.maps", lambda: self.maps(entry)))
        if "features" in needs:
            few = subset(target_data, self.limit)
            fields["features"] = attempt(
                "features", lambda: self.source_vectors(entry, few)["first"]
            )
        if "esm" in needs:
            fields["esm"] = attempt("esm", lambda: self.embedding_map(entry, source_data))
        return Candidate(target, source, missing=missing, **fields)

    # --- passes

    def base_vectors(self, few: TaskData) -> Arrays:
        """``first`` and ``mean``, (n,D) each, in the plain base."""
        return self._cached(
            {"what": "base", **_rows_of(few)},
            lambda: self._vectors(self.backbone.encoder(), few),
        )

    def source_vectors(self, entry: Entry, few: TaskData) -> Arrays:
        """``first`` and ``mean``, (n,D) each, with the adapter of ``entry`` active."""
        return self._cached(
            {"what": "source", "entry": entry.digest, **_rows_of(few)},
            lambda: self._with_adapter(entry, few),
        )

    def embedding_map(self, entry: Entry, source_data: Callable[[], TaskData]) -> np.ndarray:
        """The embedding-space map (D+1,D) of a source, from its own rows.

        Made once per entry: later targets need neither the source's data nor its pass.
        """
        from mtl.graph.scores.esm import fit_map

        def make() -> Arrays:
            few = subset(source_data(), self.limit)
            return {
                "esm": fit_map(
                    self.base_vectors(few)["first"], self.source_vectors(entry, few)["first"]
                )
            }

        key = {"what": "esm", "entry": entry.digest}
        if entry.manifest.task["kind"] == "multiple_choice":
            key["each"] = "choice"
        return np.asarray(self._cached(key, make)["esm"])

    def fisher(self, few: TaskData) -> Arrays:
        """Layer → (D,): the task's Fisher diagonal at the token that heads read (``taskemb``).

        Where they read the mean over the real tokens: of one vector that is added to all of these,
        which in the last layer is the mean itself.
        """
        return self._cached(
            {"what": "fisher", **_rows_of(few)},
            lambda: self._fisher(few),
        )

    def maps(self, entry: Entry) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Site → (U (D,R), V (R,D)) of a stored adapter.

        Raises:
            Unscorable: its method has no linear down-projection, or changes the base itself.
        """
        from mtl.backbone.injection import bottleneck_layers
        from mtl.methods.source import PlainSource, as_source

        encoder = self.backbone.encoder()
        load_adapter_entry(encoder, entry, self.workspace.zoo, "looked_at")
        found = {}
        for index, location, layer in bottleneck_layers(encoder):
            if "looked_at" in layer.adapters:
                source = as_source(
                    layer.adapters["looked_at"], layer.adapters_config.get("looked_at")
                )
                if not isinstance(source, PlainSource):
                    raise Unscorable(
                        f"adapters of {entry.manifest.method} have no linear down-projection"
                    )
                up, down = source.up_weight.double().numpy(), source.down.double().numpy()
                found[f"{index}.{location}"] = (up, down)
        if not found:
            raise Unscorable(f"{entry.manifest.method} has no bottleneck sites")
        return found

    # --- how

    def _with_adapter(self, entry: Entry, few: TaskData) -> Arrays:
        attached = load(entry, self.workspace.zoo, self.backbone).attached
        # First: what is computed once for evaluation stays where it was computed.
        attached.network.to(self.device.torch_device)
        with attached.evaluating():
            return self._vectors(attached.network.encoder, few)

    def _encoded(self, few: TaskData) -> Encoded:
        return self.backbone.encode(few, "train", self.workspace.cache)

    def _vectors(self, encoder: Any, few: TaskData) -> Arrays:
        return token_vectors(encoder, self._encoded(few), self.device)

    def _fisher(self, few: TaskData) -> Arrays:
        kind, labels = judged(few)
        weight, bias = fit_head(self.base_vectors(few)["first"], labels, kind)
        encoder = self.backbone.encoder().to(self.device.torch_device).eval()
        # The base is frozen: gradients start at the embeddings' output, which nothing else needs.
        hook = encoder.get_input_embeddings().register_forward_hook(
            lambda module, args, output: output.detach().requires_grad_()
        )
        pooling = arch_of(encoder.config).pooling
        encoded = self._encoded(few)
        by_row = torch.from_numpy(labels.reshape(len(encoded), encoded.choices, *labels.shape[1:]))
        totals: dict[str, torch.Tensor] = {}
        try:
            for rows in eval_order(encoded, usual_passes(self.device.torch_device)):
                batch = to_device(encoded.collate(rows), self.device.torch_device)
                with torch.enable_grad():
                    with self.device.autocast():
                        output = encoder(**inputs_of(batch), output_hidden_states=True)
                    states = output.hidden_states[1:]
                    for state in states:
                        state.retain_grad()
                    mask = batch["attention_mask"]
                    vectors = pooled(states[-1], mask, pooling).float()
                    logits = vectors @ weight.to(vectors.device) + bias.to(vectors.device)
                    wanted = by_row[torch.from_numpy(rows)].flatten(0, 1).to(logits.device)
                    # a sum, so that every row's gradient is its own
                    row_losses(kind, logits, wanted).sum().backward()
                for index, state in enumerate(states):
                    assert state.grad is not None
                    if pooling == "mean":
                        own = (state.grad * mask.unsqueeze(-1)).sum(1)
                    else:
                        own = pooled(state.grad, mask, pooling)
                    squared = own.double().square().sum(0).cpu()
                    totals[str(index)] = totals.get(str(index), torch.zeros(())) + squared
        finally:
            hook.remove()
        return {name: (total / len(labels)).numpy() for name, total in totals.items()}

    def _cached(self, key: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
        base = self.backbone.base
        whole = {
            **key,
            "version": VERSION,
            "limit": self.limit,
            "base": base.fingerprint,
            "tokenizer": base.tokenizer,
        }
        if self.device.precision != "fp32":
            whole["precision"] = self.device.precision
        return kept(self.workspace.cache.parent / "features", whole, make)


def judged(few: TaskData) -> tuple[str, np.ndarray]:
    """What scores take a task for: its kind, and the labels of its rows.

    A multiple choice is taken for as many rows as there are choices, of two classes: the right one
    or not. So are the candidates of ReCoRD, which are rows of their own already.
    """
    kind, labels = few.spec.kind, few.splits["train"].labels
    if kind == "multiple_choice":
        right = labels[:, None] == np.arange(few.spec.choices)
        return "classification", right.reshape(-1).astype(np.int64)
    return ("classification" if kind == "candidates" else kind), labels


def _texts(parts: Sequence[Sequence[str]], choices: int) -> list[str]:
    """The text of every row, its parts joined; of a multiple choice the context with each."""
    if choices == 1:
        return [" ".join(row) for row in zip(*parts, strict=True)]
    context, *each = parts
    return [
        f"{first} {choice}"
        for first, *several in zip(context, *each, strict=True)
        for choice in several
    ]


def _rows_of(few: TaskData) -> dict[str, Any]:
    """What decides a task's rows, for the name of a file."""
    found = {"rows": few.fingerprints["train"], "length": few.spec.max_length}
    return {**found, "each": "choice"} if few.spec.choices > 1 else found
