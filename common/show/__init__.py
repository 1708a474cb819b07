"""Pictures and the HTML report."""

from common.data.show_batch import show_batch
from common.figures import Picture, learning_curves, line_figure, matrix_figure
from common.show.report import Report
from common.show.results import show_results

__all__ = ["Picture", "Report", "learning_curves", "line_figure", "matrix_figure", "show_batch", "show_results"]
