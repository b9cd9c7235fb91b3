"""A small English-like world that generates six tasks and a pretraining text, all from meaning.

Labels follow from what sentences say (:mod:`demo_world.meaning`), so the tasks share skills the way
GLUE's do: who knows that a hound is a dog and that "not big" is not "small" can judge entailment,
paraphrase and similarity. Everything is a pure function of names and fixed seeds. The package
ships the rows (``mtl/data/demo``), which ``scripts/make_demo.py`` wrote.
"""

from demo_world.suite import SIZES, TASKS, generate
from demo_world.text import vocabulary, world_text

__all__ = ["SIZES", "TASKS", "generate", "vocabulary", "world_text"]
