"""The source-task graph: which sources help which target, measured, learned and predicted.

Evidence lies in one file per run beside the zoo (:mod:`mtl.graph.evidence`); the graph is derived
from them and the zoo's manifests (:mod:`mtl.graph.model`). Nothing here runs a model.
"""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.graph.collect import record
    from mtl.graph.evidence import Evidence, graph_folder, read_evidence, write_evidence
    from mtl.graph.model import build_graph, edge_value

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "collect": ["record"],
        "evidence": ["Evidence", "graph_folder", "read_evidence", "write_evidence"],
        "model": ["build_graph", "edge_value"],
    },
)
