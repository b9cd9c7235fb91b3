"""Pretrain the demo encoder by masked language modelling on the demo world's text; or a decoder.

    python scripts/pretrain_demo.py                     # rewrites mtl/backbone/demo
    python scripts/pretrain_demo.py --out DIR --steps N
    python scripts/pretrain_demo.py --decoder --out DIR # of llama's type, by the next token

Text only, no labels. Of 20 % of the tokens, half become ``<mask>``, 30 % another word, 20 % stay:
the many replaced words teach the encoder to notice what does not fit. Progress and the masked-token
accuracy on unseen text are printed (of a decoder, the next-token accuracy); the last line is the
summary as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
SELECTED, MASKED, REPLACED = 0.2, 0.5, 0.3


def make_tokenizer(decoder: bool) -> Any:
    """A word-level tokenizer over the world's vocabulary, lower case.

    Pairs are in RoBERTa's format; a decoder's texts end in their last word, whose state has learned
    to say what follows.
    """
    from demo_world import vocabulary
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate([*SPECIAL, *vocabulary()])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A" if decoder else "<s> $A </s>",
        pair="<s> $A </s> $B" if decoder else "<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", words["<s>"]), ("</s>", words["</s>"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    )


def make_model(tokenizer: Any, options: argparse.Namespace) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM, RobertaConfig, RobertaForMaskedLM

    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": options.hidden,
        "num_hidden_layers": options.layers,
        "num_attention_heads": options.heads,
        "intermediate_size": options.inner,
        "max_position_embeddings": 66,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if options.decoder:
        return LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True, use_cache=False))
    return RobertaForMaskedLM(RobertaConfig(**sizes, type_vocab_size=1, layer_norm_eps=1e-5))


def encode(tokenizer: Any, count: int, seed: int, decoder: bool) -> list[list[int]]:
    from demo_world import world_text

    lines = list(world_text(count, seed))
    firsts = [first for first, _ in lines]
    seconds = [second for _, second in lines]
    pairs = [i for i, second in enumerate(seconds) if second is not None]
    single = [i for i, second in enumerate(seconds) if second is None]
    found: list[list[int]] = [[] for _ in lines]
    for rows, texts in (
        (pairs, tokenizer([firsts[i] for i in pairs], [seconds[i] for i in pairs])["input_ids"]),
        (single, tokenizer([firsts[i] for i in single])["input_ids"]),
    ):
        for row, ids in zip(rows, texts, strict=True):
            # What follows a decoder's text is the end of it.
            found[row] = [*ids, tokenizer.eos_token_id] if decoder else ids
    return found


def collate(rows: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    return ids, (ids != pad).long()


def spoil(
    ids: torch.Tensor, tokenizer: Any, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masked input and labels (-100 where nothing is asked)."""
    ordinary = ids >= len(SPECIAL)
    draw = torch.rand(ids.shape, generator=generator)
    chosen = ordinary & (draw < SELECTED)
    labels = torch.where(chosen, ids, -100)
    masked = chosen & (draw < SELECTED * MASKED)
    replaced = chosen & ~masked & (draw < SELECTED * (MASKED + REPLACED))
    words = torch.randint(len(SPECIAL), len(tokenizer), ids.shape, generator=generator)
    spoiled = torch.where(masked, tokenizer.mask_token_id, ids)
    return torch.where(replaced, words, spoiled), labels


def asked_of(
    ids: torch.Tensor, tokenizer: Any, generator: torch.Generator, decoder: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model reads, and what it is asked at each place (-100: nothing)."""
    if not decoder:
        return spoil(ids, tokenizer, generator)
    following = torch.full_like(ids, -100)
    following[:, :-1] = ids[:, 1:]
    return ids, following.masked_fill(following == tokenizer.pad_token_id, -100)


@torch.no_grad()
def accuracy(model: Any, rows: list[list[int]], tokenizer: Any, decoder: bool) -> float:
    """Share of ``<mask>`` positions on unseen text whose word is the most likely one.

    Of a decoder: of all positions, whose next word is.
    """
    model.eval()
    generator = torch.Generator().manual_seed(1)
    right = total = 0
    for start in range(0, len(rows), 256):
        ids, attention = collate(rows[start : start + 256], tokenizer.pad_token_id)
        read, labels = asked_of(ids, tokenizer, generator, decoder)
        asked = labels != -100
        if not decoder:
            asked &= read == tokenizer.mask_token_id
        best = model(input_ids=read, attention_mask=attention).logits.argmax(-1)
        right += int((best[asked] == labels[asked]).sum())
        total += int(asked.sum())
    model.train()
    return right / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="")
    parser.add_argument("--decoder", action="store_true", help="a decoder; needs --out")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--lines", type=int, default=300_000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--inner", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    decoder = options.decoder
    if decoder and not options.out:
        parser.error("--decoder needs --out DIR: the folder of the demo encoder is not its own")
    torch.manual_seed(options.seed)
    tokenizer = make_tokenizer(decoder)
    rows = encode(tokenizer, options.lines, 1, decoder)
    unseen = encode(tokenizer, 2000, 2, decoder)
    model = make_model(tokenizer, options).train()
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
        lr=options.lr,
        betas=(0.9, 0.98),
    )
    warm = max(1, options.steps // 20)
    asked = "next-token" if decoder else "masked"
    generator = torch.Generator().manual_seed(options.seed)
    start = time.monotonic()
    for step in range(options.steps):
        factor = (
            step / warm
            if step < warm
            else 0.5 * (1 + math.cos(math.pi * (step - warm) / (options.steps - warm)))
        )
        for group in optimiser.param_groups:
            group["lr"] = options.lr * factor
        picked = torch.randint(len(rows), (options.batch,), generator=generator).tolist()
        ids, attention = collate([rows[index] for index in picked], tokenizer.pad_token_id)
        read, labels = asked_of(ids, tokenizer, generator, decoder)
        logits = model(input_ids=read, attention_mask=attention).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if (step + 1) % 250 == 0 or step == 9:
            passed = time.monotonic() - start
            left = passed / (step + 1) * (options.steps - step - 1)
            print(
                f"step {step + 1}/{options.steps} loss {loss.item():.3f} {asked} accuracy "
                f"{accuracy(model, unseen, tokenizer, decoder):.3f} ({left / 60:.1f} min left)",
                flush=True,
            )
    out = Path(options.out or Path(__file__).parents[1] / "mtl/backbone/demo")
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    layers = model.base_model
    model.config.architectures = [type(layers).__name__]
    model.config.save_pretrained(out)
    tensors = {name: value.half().contiguous() for name, value in layers.state_dict().items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    print(
        json.dumps(
            {
                "steps": options.steps,
                "minutes": round((time.monotonic() - start) / 60, 1),
                f"{asked.replace('-', '_')}_accuracy": round(
                    accuracy(model, unseen, tokenizer, decoder), 4
                ),
                "megabytes": round((out / "model.safetensors").stat().st_size / 1e6, 2),
                "parameters": sum(value.numel() for value in tensors.values()),
            }
        )
    )


if __name__ == "__main__":
    main()
