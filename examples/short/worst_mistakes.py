"""The mistakes that a model is surest of: python examples/short/worst_mistakes.py ENTRY [SPLIT]"""

import sys

import mtl

for row in mtl.error_report(*sys.argv[1:], top=20).mistakes:
    sure = row.difference if row.confidence is None else row.confidence
    print(f"{row.label} → {row.predicted} ({sure:.2f})", *row.texts, sep=" | ")
