"""A small English-like world that generates six tasks and a pretraining text, all from meaning.

Labels follow from what sentences say (:mod:`mtl.data.demo.meaning`), so the tasks share skills
the way GLUE's do: who knows that a hound is a dog and that "not big" is not "small" can judge
entailment, paraphrase and similarity. Everything is a pure function of names and fixed seeds.
"""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.data.demo.suite import SIZES, TASKS, generate
    from mtl.data.demo.text import vocabulary, world_text

__all__, __getattr__, __dir__ = exports(
    __name__,
    {"suite": ["SIZES", "TASKS", "generate"], "text": ["vocabulary", "world_text"]},
)
