"""Answer every row of a file: python examples/short/predict_a_file.py ENTRY new.csv answers.csv"""

import sys

import mtl

entry, new, answers = sys.argv[1:]
print(mtl.load(entry).predict_file(new, answers, scores=True, overwrite=True))
