"""One file for a colleague: python examples/short/send_the_model.py ENTRY model.mtlzoo"""

import sys

import mtl

print(mtl.pack(*sys.argv[1:]))
# and there: model = mtl.load(mtl.unpack("model.mtlzoo")[-1])
