"""Claims with verdicts, and the one HTML file that shows them with figures and numbers."""

from phasescope.report.basins import report_basin
from phasescope.report.checkpoints import (
    CheckpointAnalysis,
    analyse_checkpoint,
    checkpoint_table,
)
from phasescope.report.claims import (
    VERDICTS,
    Claim,
    ExperimentResults,
    Verdict,
    claims_table,
    load_results,
    save_results,
)
from phasescope.report.html import write_report
from phasescope.report.runs import report_runs

__all__ = [
    "VERDICTS",
    "CheckpointAnalysis",
    "Claim",
    "ExperimentResults",
    "Verdict",
    "analyse_checkpoint",
    "checkpoint_table",
    "claims_table",
    "load_results",
    "report_basin",
    "report_runs",
    "save_results",
    "write_report",
]
