"""Plain adapters as stock ``adapters`` knows them: into an encoder, into files, and back as stock.

An exported folder holds what ``load_adapter`` of stock ``adapters`` reads, weights twice::

    adapter_config.json   adapter.safetensors      pytorch_adapter.bin
    head_config.json      model_head.safetensors   pytorch_model_head.bin

The ``.bin`` files hold the same tensors and nothing else (``torch.load(…, weights_only=True)``);
``load_adapter`` looks for them unless it is told ``use_safetensors=True``.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtl.backbone.adapter_files import alone, save_adapter
from mtl.backbone.arch import arch_of
from mtl.backbone.heads import CONFIG_FILE, load_head
from mtl.backbone.injection import bottleneck_layers, prepare
from mtl.backbone.network import INPUTS, Network
from mtl.errors import RequestError, RunError
from mtl.files import read_json
from mtl.methods.pfeiffer import exact_reduction_factor
from mtl.tasks.spans import MASKED

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.export.folding import Folded


def stock_config(folded: Folded, hidden_size: int) -> Any:
    """The ``adapters`` config of the folded adapter: a plain ``BnConfig`` without scaling.

    ``adapters`` computes the width as ``int(D // reduction_factor)``, which loses a unit for 42 %
    of all pairs if the factor is D / S; ours is D / (S + 0.5).
    """
    from adapters import BnConfig

    known = set(BnConfig.__dataclass_fields__)
    return BnConfig(
        **{key: value for key, value in folded.placement.items() if key in known},
        reduction_factor=exact_reduction_factor(folded.width, hidden_size),
        non_linearity=folded.activation,
        scaling=1.0,
    )


@torch.no_grad()
def install(encoder: Any, folded: Folded, name: str) -> None:
    """Add the folded adapter to ``encoder`` (stock or ours) as ``name``, active, frozen."""
    encoder.add_adapter(name, config=stock_config(folded, encoder.config.hidden_size))
    for index, location, layer in bottleneck_layers(encoder):
        if name not in layer.adapters:
            continue
        maps, adapter = folded.sites[index, location], layer.adapters[name]
        down = adapter.adapter_down[0]
        if down.weight.shape != maps.down.shape:
            raise AssertionError(f"adapters built {down.weight.shape}, not {maps.down.shape}")
        adapter.to(next(encoder.parameters()).dtype)
        down.weight.copy_(maps.down)
        down.bias.copy_(maps.down_bias)
        adapter.adapter_up.weight.copy_(maps.up)
        adapter.adapter_up.bias.copy_(maps.up_bias)
        for parameter in adapter.parameters():
            parameter.requires_grad_(False)
        adapter.eval()
    encoder.set_active_adapters(name)


def write_adapter(
    folder: Path,
    folded: Folded,
    backbone: Backbone,
    name: str,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write config and weights of the folded adapter, as ``adapters`` itself does."""
    encoder = backbone.encoder().to(dtype)
    install(encoder, folded, name)
    save_adapter(encoder, name, folder, backbone.base.id)


def check_stock_norms(folded: Folded, backbone: Backbone) -> None:
    """Refuse a placement where stock ``adapters`` would apply another layer's LayerNorm.

    Of a model that it plugs into by hooks, ``adapters`` 1.3.0 gives every layer the LayerNorm of
    the last one; ours gives each its own.

    Raises:
        RequestError: it would, with the nearest alternative.
    """
    interface = getattr(backbone.encoder(), "adapter_interface", None)
    if interface is None or not folded.placement["original_ln_before"]:
        return
    norms = {"mh_adapter": interface.layer_ln_1, "output_adapter": interface.layer_ln_2}
    if backbone.base.layers > 1 and any(norms.get(location) for _, location in folded.sites):
        raise RequestError(
            "Cannot export it to adapters: where its sources sit (placement pfeiffer), stock "
            f"adapters gives every layer of a {backbone.base.type} the LayerNorm of the last one, "
            "and answers would be others. Nearest: sources of --method houlsby or parallel, which "
            "read no LayerNorm; mtl itself gives each layer its own."
        )


def check_stock_head(folder: Path, backbone: Backbone, ref: str) -> None:
    """Refuse the head in ``folder`` where stock ``adapters`` has none of its kind for the type.

    Raises:
        RequestError: it has not, with the nearest alternative.
    """
    import adapters

    arch = arch_of(backbone.pristine.config)
    if not arch.heads:
        return
    kind = read_json(folder / CONFIG_FILE)["config"]["head_type"]
    if kind not in getattr(adapters, arch.heads).head_types:
        raise RequestError(
            f"Cannot export {ref} to adapters: stock adapters has no head for "
            f"{kind.replace('_', ' ')} on a base of type {arch.type!r}. Nearest: --to onnx, the "
            "whole model, or a base whose heads are more: BERT, RoBERTa."
        )


def load_stock(backbone: Backbone, folder: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A model of stock ``adapters``, nothing of ours in it, with the exported adapter and head.

    Of a type for which ``adapters`` has no heads: the encoder alone.

    Raises:
        RunError: stock ``adapters`` reports weights that are missing, surplus or do not fit.
    """
    import adapters

    logging.getLogger("adapters").setLevel(logging.ERROR)
    pristine: Any = backbone.pristine
    if arch_of(pristine.config).heads:
        model: Any = adapters.AutoAdapterModel.from_config(copy.deepcopy(pristine.config))
        missing, unexpected = model.base_model.load_state_dict(pristine.state_dict(), strict=False)
        own = alone(model.base_model, missing)
        strange = [key for key in (*own, *unexpected) if not key.startswith("pooler.")]
        if strange:
            raise RunError(
                f"Stock adapters builds another encoder: {', '.join(strange[:5])} differ."
            )
    else:
        model = copy.deepcopy(pristine)
        prepare(model)
    info: dict[str, Any] = {}
    model.load_adapter(str(folder), use_safetensors=True, set_active=True, loading_info=info)
    info["missing_keys"] = alone(model.base_model, info.get("missing_keys") or ())
    wrong = {key: info[key] for key in info if info[key]}
    if wrong:
        raise RunError(f"Stock adapters does not load what was exported to {folder}: {wrong}.")
    return model.to(dtype).eval()


def stock_network(backbone: Backbone, folder: Path) -> nn.Module:
    """What :func:`load_stock` gives as batch → logits, with the head that lies beside it."""
    model = load_stock(backbone, folder)
    if arch_of(model.config).heads:
        return StockNetwork(model)
    head = load_head(folder, model.config, pooler=backbone.pooler)
    return Network(model, head).eval()


def write_interface(folder: Path, backbone: Backbone) -> None:
    """``adapter_interface.json`` of a type for which stock ``adapters`` has none of its own."""
    arch = arch_of(backbone.pristine.config)
    if arch.interface:
        from adapters import AdapterModelInterface

        AdapterModelInterface(**arch.interface)._save(str(folder), backbone.pristine.config)


class StockNetwork(nn.Module):
    """A model of stock ``adapters`` as batch → logits, in the shapes of ``mtl``'s networks.

    Multiple choice: one logit per encoding (N,1); span extraction: (N,T,2), masked at padding.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        inputs = {name: batch[name] for name in INPUTS if name in batch}
        output = self.model(**inputs)
        if hasattr(output, "start_logits"):
            both = torch.stack([output.start_logits, output.end_logits], -1)
            return both.masked_fill((inputs["attention_mask"] == 0).unsqueeze(-1), MASKED)
        rows = inputs["input_ids"].shape[0]
        return output.logits.reshape(rows, -1)
