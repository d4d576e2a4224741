"""What an evaluation leaves for people to look at: an overview picture, a page, a table for the terminal."""

from coop_perception.report.frames import FrameScore, Sample
from coop_perception.report.overview import write_overview
from coop_perception.report.page import write_report
from coop_perception.report.terminal import summary_table

__all__ = ["FrameScore", "Sample", "summary_table", "write_overview", "write_report"]
