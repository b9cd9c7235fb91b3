"""BibTeX of methods, from the citations that they carry and the titles of their papers."""

from __future__ import annotations

import re
from collections.abc import Mapping

TITLES = {
    "1712.01312": "Learning Sparse Neural Networks through L0 Regularization",
    "1810.04805": "BERT: Pre-training of Deep Bidirectional Transformers for Language "
    "Understanding",
    "1902.00751": "Parameter-Efficient Transfer Learning for NLP",
    "2005.00247": "AdapterFusion: Non-Destructive Task Composition for Transfer Learning",
    "2012.07463": "Parameter-Efficient Transfer Learning with Diff Pruning",
    "2101.00190": "Prefix-Tuning: Optimizing Continuous Prompts for Generation",
    "2106.04489": "Parameter-efficient Multi-task Fine-tuning for Transformers via Shared "
    "Hypernetworks",
    "2106.04647": "Compacter: Efficient Low-Rank Hypercomplex Adapter Layers",
    "2106.09685": "LoRA: Low-Rank Adaptation of Large Language Models",
    "2106.10199": "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked "
    "Language-models",
    "2110.04366": "Towards a Unified View of Parameter-Efficient Transfer Learning",
    "2110.07577": "UniPELT: A Unified Framework for Parameter-Efficient Language Model Tuning",
    "2205.05638": "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than "
    "In-Context Learning",
    "2205.12410": "AdaMix: Mixture-of-Adaptations for Parameter-efficient Model Tuning",
    "2302.07027": "AdapterSoup: Weight Averaging to Improve Generalization of Pretrained "
    "Language Models",
    "2303.10512": "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning",
    "2305.17682": "One Network, Many Masks: Towards More Parameter-Efficient Transfer Learning",
    "2310.01217": "ScaLearn: Simple and Highly Parameter-Efficient Task Transfer by Learning to "
    "Scale",
    "2310.11454": "VeRA: Vector-based Random Matrix Adaptation",
    "2311.11696": "Sparse Low-rank Adaptation of Pre-trained Language Models",
    "2404.03592": "ReFT: Representation Finetuning for Language Models",
    "2407.11033": "Hadamard Adapter: An Extreme Parameter-Efficient Adapter Tuning Method for "
    "Pre-trained Language Models",
}
"""arXiv number → title."""


def bibtex(citations: Mapping[str, str]) -> str:
    """An entry for every source of the methods, methods of one source together.

    A source without an arXiv number (code, a package of others) is quoted as its method says it.

    Args:
        citations: method → its citation, ``Hu et al. 2022, arXiv:2106.09685``.
    """
    methods: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    for name, text in citations.items():
        parts = re.findall(r"(.*?)arXiv:(\d{4}\.\d{4,5})", text) or [(text, text)]
        for before, source in parts:  # one text may name several papers
            methods.setdefault(source, []).append(name)
            if _WHO.search(before) or source not in texts:
                texts[source] = before
    return "\n\n".join(
        _entry(source, sorted(names), texts[source]) for source, names in sorted(methods.items())
    )


_WHO = re.compile(
    r"(?P<who>[A-Z][\w-]*(?: (?:and )?[A-Z][\w-]*)*)(?P<more> et al\.)? (?P<year>(?:19|20)\d\d)"
)


def _entry(source: str, names: list[str], text: str) -> str:
    said = _WHO.search(text)
    fields = {}
    key = re.sub(r"[^a-z0-9]+", "", names[0])
    if said:
        others = " and others" if said["more"] else ""
        fields = {"author": said["who"] + others, "year": said["year"]}
        key = re.sub(r"[^a-z]", "", said["who"].lower().split(" and ")[0]) + said["year"] + key
    if re.fullmatch(r"\d{4}\.\d{4,5}", source):
        title = TITLES.get(source)
        fields |= {"title": f"{{{title}}}"} if title else {}
        fields |= {"eprint": source, "archivePrefix": "arXiv"}
    else:
        fields |= {"howpublished": source}
    fields["note"] = f"mtl: {', '.join(names)}"
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{key},\n{lines}\n}}"
