"""Which method is best on dev? python examples/short/compare_by_dev.py TASK pfeiffer bitfit …"""

import sys

import mtl

task, *methods = sys.argv[1:]
for name in methods:
    for seed in (0, 1, 2):
        mtl.train_adapter(task, method=name, seed=seed)
rows = mtl.results(task, pick="best-dev")
for row in sorted(rows, key=lambda row: -row.dev.mean):
    print(f"{row.method}: dev {row.dev.mean:.4f}, test {row.test.mean:.4f}, seeds {row.seeds}")
