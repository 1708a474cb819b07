"""Pictures and the HTML report."""

from common.show.pictures import Picture, learning_curves, line_figure, matrix_figure, show_batch, show_results
from common.show.report import Report

__all__ = ["Picture", "Report", "learning_curves", "line_figure", "matrix_figure", "show_batch", "show_results"]
