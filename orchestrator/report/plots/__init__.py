"""The pictures of a report. Only this package imports matplotlib."""

from matplotlib.figure import Figure

from orchestrator.report.plots.loss import loss_curve
from orchestrator.report.plots.overlay import overlay
from orchestrator.report.plots.panels import analysis
from orchestrator.report.plots.style import DARK, LIGHT, Theme, png

__all__ = ["DARK", "LIGHT", "Figure", "Theme", "analysis", "loss_curve", "overlay", "png"]
