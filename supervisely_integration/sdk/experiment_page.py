"""The page of an experiment, with commands that work with this app."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from supervisely.nn.training import train_app as sdk_train_app
from supervisely.template.experiment import experiment_generator
from supervisely.template.experiment.experiment_generator import ExperimentGenerator

from .attributes import replaced
from .benchmark import MIN_SCORE

_PAGE = "experiment.html.jinja"
_FIRST_REPLACED = '{% if experiment.model.task_type == "object detection" %}\n\n## Tracking'
_INPUT = re.compile(r'input=(\[.*?\]|".*?"),? +# [Cc]an also be .*')
_METRICS = "{{ widgets.tables.metrics | safe }}\n"
_OWN_SECTIONS = Path(__file__).with_name("experiment_page.md.jinja")
# `docs/benchmark.md` has measurements.
_ABOUT_METRICS = (
    "Precision, recall and f1 are means over IoU thresholds from 0.5 to 0.95, at the confidence "
    "`f1_optimal_conf`. `report.html` of the training gives them at IoU 0.5, where they are higher "
    f"and the best confidence is another one. This evaluation uses boxes with scores above "
    f"{MIN_SCORE}, clipped to the image, the training all of them: AP and calibration can differ."
)


class ExperimentPage(ExperimentGenerator):  # type: ignore[misc]
    """The SDK's page up to its sections on tracking, Docker and local code, which are our own.

    The SDK's sections (supervisely/template/experiment/experiment.html.jinja) offer tracking, pull
    an image that is not published, break shell lines with comments, and call `predict` with
    arguments that it does not have. `ModelAPI.predict` raises TypeError for the list of paths in
    its other examples; it reads neither PIL images nor URLs.
    """

    @property
    def template_path(self) -> str:
        """Path of the template, in a copy of the SDK's templates."""
        source = Path(experiment_generator.__file__).parent
        self._templates = TemporaryDirectory()  # exists as long as this object
        folder = Path(shutil.copytree(source, self._templates.name, dirs_exist_ok=True))
        text, _, _ = (folder / _PAGE).read_text(encoding="utf-8").partition(_FIRST_REPLACED)
        text = text.replace(_METRICS, f"{_METRICS}\n{_ABOUT_METRICS}\n")
        text = _INPUT.sub('input="image.jpg",  # or a folder of images', text)
        own = _OWN_SECTIONS.read_text(encoding="utf-8")
        (folder / _PAGE).write_text(text + own, encoding="utf-8")
        return str(folder / self.TEMPLATE)


@contextmanager
def own_experiment_page() -> Iterator[None]:
    """Let the SDK's training app write our page of an experiment."""
    with replaced(sdk_train_app, "ExperimentGenerator", ExperimentPage):
        yield
