"""Progress of a training before and after its epochs, which have `TrainingEvents`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtdetrv2_pytorch.src.core import YAMLConfig
    from rtdetrv2_pytorch.src.doctor.data_report import DataReport


class TrainingProgress:
    """Follows the steps around a training. Every method does nothing; subclasses override them."""

    def show(self, activity: str, done: int = 0, total: int | None = None) -> None:
        """Show what runs at the moment; `total` is the number of items, if it is known."""

    def headline(self, title: str, subject: str) -> None:
        """Announce a part of the work, such as "Examining" and the name of the dataset."""

    def notice(self, line: str) -> None:
        """Report a choice that the user may want to change."""

    def confirm(self, question: str) -> bool:
        """Ask the user a question; False without a user to ask."""
        del question
        return False

    def configured(self, cfg: "YAMLConfig") -> None:
        """Handle the complete configuration; its output folder is locked for this run."""

    def examined(self, report: "DataReport", paths: Sequence[Path]) -> None:
        """Handle the findings in the dataset and the files of the data report."""
