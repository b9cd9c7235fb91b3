"""A training step asks nothing of the device, and leaves nothing on the host: on "meta".

Tensors there have a device that is not the CPU's, and no values: an operand left on the CPU, or a
value that the host reads in between (which makes a GPU wait), raises. So every method's real step
(loss, backward, clipping, AdamW, what the method does after it) runs here as it would on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cli_bench import mtl

from mtl.engine import Device, loop
from mtl.engine.feed import to_device
from mtl.engine.optimise import Optimiser
from mtl.errors import RunError
from mtl.methods import METHODS

META = torch.device("meta")
SETTINGS = {
    "adalora": ["rank=3", "target_rank=1", "interval=1", "initial_warmup=0"],
    "diff-pruning": ["finetune_epochs=1"],
}
LINE = ["--suite", "mini", "--epochs", "4", "--json"]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Runs are built and handed over, not trained."""
    found: list[Any] = []

    def keep(job: Any, device: Any) -> None:
        found.append(job)
        raise RunError("kept")

    monkeypatch.setattr("mtl.runs.executing.train", keep)
    return found


@pytest.fixture
def moving(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``.to("meta")`` keeps parameters the objects they are, as ``.to("cuda")`` does."""
    from transformers.modeling_attn_mask_utils import AttentionMaskConverter
    from transformers.models.roberta import modeling_roberta

    def mask_of(mask: Any, dtype: torch.dtype, tgt_len: int | None = None) -> Any:
        return AttentionMaskConverter._expand_mask(mask=mask, dtype=dtype, tgt_len=tgt_len)

    # The one look that is not ours: whether a batch has padding at all, once per forward.
    monkeypatch.setattr(modeling_roberta, "_prepare_4d_attention_mask_for_sdpa", mask_of)
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(before)


def on_cpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As many zeros of the same kinds there."""
    return {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in tensors.items()}


def run_on_meta(job: Any) -> None:
    """Two steps as :func:`mtl.engine.loop.train` takes them, a resume, and a forward pass."""
    attached = job.attached
    stage = next(iter(attached.stages(job.settings)))
    if stage.begin is not None:
        stage.begin(True)
    network = attached.network.to(META).train()
    left = [name for name, tensor in network.state_dict().items() if tensor.device != META]
    assert not left
    device = Device(SimpleNamespace(device=META, process_index=0, num_processes=1), "fp32")
    optimiser = Optimiser(loop._groups_of(attached, stage), job.settings, 10)
    order = job.feed.order(0)
    for number in range(2):
        total = loop.take_step(job, device, loop.Step(*order[number], optimiser, number))
        assert total.device == META
        attached.after_step(number)
        optimiser.clear()
    # A resume point is read on the CPU; what a method takes back must go where its model is.
    tensors, values = attached.state()
    attached.load_state(on_cpu(tensors), values)
    optimiser.load_state(on_cpu(optimiser.state()))
    loop.take_step(job, device, loop.Step(*order[2], optimiser, 2))
    attached.after_step(2)
    optimiser.clear()
    network.eval()
    task, rows = order[0]
    with torch.no_grad(), attached.evaluating():
        assert attached.logits(to_device(job.feed.collate(task, rows), META)).device == META


@pytest.mark.parametrize("method", METHODS.names())
def test_stage_one(method: str, mini: Path, jobs: list[Any], moving: None) -> None:
    values = SETTINGS.get(method, [])
    line = [*LINE, "--task", "mood", "--method", method, *(["--set", *values] if values else [])]
    assert "kept" in mtl("train", *line).err
    run_on_meta(jobs[0])


def test_the_hugging_face_form_of_adamw(mini: Path, jobs: list[Any], moving: None) -> None:
    line = [*LINE, "--task", "mood", "--method", "pfeiffer", "--adam-form", "hf"]
    assert "kept" in mtl("train", *line, "--weight-decay", "0.1").err
    run_on_meta(jobs[0])


@pytest.fixture(scope="module")
def kinds(
    suite_folder: Path, tiny: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A zoo with two sources of every kind that composes; do not change it."""
    root = tmp_path_factory.mktemp("kinds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_TASKS", str(suite_folder))
        patch.setenv("MTL_CACHE", str(root / "cache"))
        for method in METHODS.names():
            if not METHODS.get(method).composes:
                continue
            said = mtl(
                *("train", "--suite", "mini", "--task", "same", "mood", "--method", method),
                *("--model", tiny("roberta"), "--zoo", root / "zoo", "--runs", root / "runs"),
                *("--set", "max_steps=1", *SETTINGS.get(method, [])),
                "--json",
            )
            assert said.code == 0, said.err
    return root / "zoo"


COMPOSITIONS = [
    *(("scalearn", method) for method in METHODS.names() if METHODS.get(method).composes),
    *((name, "pfeiffer") for name in ("scalearn-uniform", "scalearn++", "scalearn-uniform++")),
    *((name, "pfeiffer") for name in ("average", "gated", "probe", "soup", "fusion")),
    *((name, "lora") for name in ("scalearn++", "average", "probe")),
    *(("fusion", method) for method in ("adakron", "compacter", "propetl")),
]


@pytest.mark.parametrize(("composition", "method"), COMPOSITIONS)
def test_stage_two(
    composition: str,
    method: str,
    kinds: Path,
    mini: Path,
    jobs: list[Any],
    moving: None,
) -> None:
    line = ["--target", "same", "--sources", "mood", "same", "--source-method", method]
    values = {"soup": ["weights=0.6,0.4"], "scalearn": ["regularise=0.1", "normalise=softmax"]}
    more = values.get(composition, [])
    said = mtl(
        *("compose", *LINE, *line, "--method", composition, "--zoo", kinds),
        *(["--set", *more] if more else []),
    )
    assert "kept" in said.err, said
    run_on_meta(jobs[0])


@pytest.mark.parametrize("method", ["hyperformer", "hyperformer++", "propetl-m", "adapter-m"])
def test_joint(method: str, mini: Path, jobs: list[Any], moving: None) -> None:
    assert "kept" in mtl("joint", *LINE, "--method", method).err
    run_on_meta(jobs[0])


def test_a_value_that_the_host_reads_is_found(
    stocked: Path, jobs: list[Any], moving: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mtl("compose", *LINE, "--target", "same")
    attached = jobs[0].attached
    parameter = next(iter(attached.network.parameters()))
    monkeypatch.setattr(attached, "after", [lambda step: float(parameter.sum())])
    with pytest.raises(RuntimeError, match="meta"):
        run_on_meta(jobs[0])


def test_an_operand_that_stays_behind_is_found(
    stocked: Path, jobs: list[Any], moving: None
) -> None:
    from mtl.compose.modules.scalearn import ScaLearnSite

    mtl("compose", *LINE, "--target", "same")
    for site in jobs[0].attached.network.modules():
        if isinstance(site, ScaLearnSite):
            site.bind(torch.ones(3, 48), site._settings)
    with pytest.raises(RuntimeError, match="device"):
        run_on_meta(jobs[0])
