"""Tables, statistics and plots of what is in the zoo."""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.report.errors import ErrorReport, error_report, own_adapter
    from mtl.report.errors_text import render_errors
    from mtl.report.heatmap import draw_heatmap, source_weights
    from mtl.report.published import PublishedTable, list_published, load_published
    from mtl.report.resampling import paired_bootstrap
    from mtl.report.stats import Interval, mean_interval, paired_gain
    from mtl.report.suite import SuiteTable, suite_tables
    from mtl.report.suite_text import render_suite
    from mtl.report.tables import Row, results
    from mtl.report.tables_text import render

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "errors": ["ErrorReport", "error_report", "own_adapter"],
        "errors_text": ["render_errors"],
        "heatmap": ["draw_heatmap", "source_weights"],
        "published": ["PublishedTable", "list_published", "load_published"],
        "resampling": ["paired_bootstrap"],
        "stats": ["Interval", "mean_interval", "paired_gain"],
        "suite": ["SuiteTable", "suite_tables"],
        "suite_text": ["render_suite"],
        "tables": ["Row", "results"],
        "tables_text": ["render"],
    },
)
