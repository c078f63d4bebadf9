"""Run a training: instance, app and terminal output in one process."""

import json
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from rtdetrv2.terminal.command_log import CommandLog
from rtdetrv2.terminal.console import LiveLine, print_headline, print_notice, print_path
from rtdetrv2.terminal.training_view import TrainingView
from rtdetrv2_pytorch.src.core.yaml_files import parse_overrides
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.misc.errors import ConfigError

from ...gui.libraries import missing_libraries
from ...settings.formats import app_settings
from ...task_status import KEEP_OPEN, TaskStatus
from ..emulator.ecosystem import training_app
from ..emulator.store import NotFoundError, Store
from ..instance import LocalInstance
from .app_log import Bar, GrowingFile
from .app_process import STOP_SIGNAL, AppProcess
from .choices import check_updates, hyperparameters_for, pick_model, sample_choices
from .importing import import_folder
from .results import finish_task, show_experiment
from .selection import (
    Project,
    app_state,
    check_classes,
    choose_classes,
    choose_split,
    find_import,
    find_project,
    folder_fingerprint,
    note_import,
    read_project,
    split_note,
)
from .train_options import TrainArguments, read_app_state

Json = dict[str, Any]

_POLL_S = 0.5
# Headlines for the bars of the app, by the beginning of their names.
_STAGES = {
    "Preparing data": "Preparing data",
    "Uploading train artifacts": "Uploading the experiment",
    "Starting Model Benchmark": "Evaluating the best checkpoint",
    "Export: ": "Exporting the best checkpoint",
}
_HIDDEN_BARS = ("Epochs", "Steps", "Training is in progress")  # the engine's log has more detail
_CHOICES = ("model", "epochs", "classes", "split", "name", "update", "speedtest", "export")
_UNUSED = {  # options that replace all choices, and the options that are then unused
    "task": ("project", "data", "app_state", *_CHOICES),
    "gui": ("app_state", *_CHOICES),
    "app_state": _CHOICES,
}


def run(options: TrainArguments, console: Console, log: CommandLog) -> int:
    """Train; return the exit status, which is 0 only for a complete experiment.

    Raises:
        RTDETRError: if the options are invalid or the training fails.
        StoreError: if the instance rejects a request.
    """
    check_updates(options.update, options.model)
    unused = _unused(options)
    if unused:
        print_notice(console, unused)
    with LocalInstance(options.root) as instance:
        store = instance.store
        with LiveLine(console) as line:
            project = _project(options, store, console, line)
            state = None if options.gui else _state(options, project, store, console, line)
        task_id, app = _start(options, instance, project, state)
        with app:  # also ends the app's TensorBoard
            log.open(app.log_file)  # one log for both processes
            about = f"as task {task_id}, on project {project.name}"
            print_headline(console, "Starting the app", about)
            if options.gui:
                _show_page(store, task_id, app, console)
            results = _PageResults(store, task_id, app, console) if options.gui else None
            code = _watch(app, task_id, console, results)
        if results is not None and results.has_finished:
            return 0
        if code == -STOP_SIGNAL:
            store.tasks.set_status(task_id, "stopped")
            print_notice(console, "The app was stopped before the training began.")
            print_path(console, app.log_file)
            return 1
        info = finish_task(store, task_id, code, app)
        show_experiment(store, info, state, app, console)
        return 0


def _unused(options: TrainArguments) -> str:
    """Return a notice about options that have no effect."""
    for option, others in _UNUSED.items():
        given = [_flag(name) for name in others if getattr(options, name)]
        if getattr(options, option) and given:
            return f"unused with {_flag(option)}: {', '.join(given)}"
    return ""


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _start(
    options: TrainArguments,
    instance: LocalInstance,
    project: Project,
    state: Mapping[str, Any] | None,
) -> tuple[int, AppProcess]:
    """Create or resume a task, and start its app."""
    store = instance.store
    task_id = options.task
    if task_id is None:
        task_id = store.tasks.create(
            app={
                **{key: training_app()[key] for key in ("id", "name")},
                "version": "local",
                "address": f"http://127.0.0.1:{options.port}",
            },
            state={"slyProjectId": project.id, "guiState": state},
        )
    app = AppProcess(
        server_address=instance.address,
        token=instance.token,
        project_id=project.id,
        data_dir=store.root / "tasks" / str(task_id),
        task_id=task_id,
        app_state=state,
        port=options.port,
        environment={KEEP_OPEN: "1"} if options.gui else None,
    )
    store.tasks.set_status(task_id, "started")
    return task_id, app


def _show_page(store: Store, task_id: int, app: AppProcess, console: Console) -> None:
    """Wait until the app's page responds, and print its address."""
    try:
        with LiveLine(console) as line:
            line.show("waiting for the app")
            app.wait_until_ready()
    except BaseException:
        store.tasks.set_status(task_id, "stopped")
        raise
    print_headline(console, "Open the page", "to choose the settings and press Start")
    print_path(console, app.address)
    if missing_libraries():
        print_notice(console, "The page is not built yet: run `make page` once.")


class _PageResults:
    """Shows the result of every training that a person starts on the app's page."""

    def __init__(self, store: Store, task_id: int, app: AppProcess, console: Console) -> None:
        self._store = store
        self._task_id = task_id
        self._app = app
        self._console = console
        self._state = "waiting"
        self.has_finished = False

    @property
    def is_waiting(self) -> bool:
        """Whether the app waits for a person; its bars then describe an earlier training."""
        return self._state != "running"

    def show(self, line: LiveLine) -> None:
        """Show the result of a training that has just ended, and then that the app waits."""
        status = TaskStatus.load(self._app.data_dir)
        if status is None or status.state == self._state:
            return
        self._state = status.state
        if self._state == "finished":
            self.has_finished = True
            info = finish_task(self._store, self._task_id, 0, self._app)
            show_experiment(self._store, info, None, self._app, self._console)
        elif self._state == "stopped":
            print_notice(self._console, "Stopped: nothing to save.")
        if self.is_waiting:
            self.wait(line)

    def wait(self, line: LiveLine) -> None:
        """Say that the app waits for a person."""
        then = "results, or another training; Ctrl-C to end" if self.has_finished else "press Start"
        line.show(f"open the page {self._app.address}: {then}")


def _project(options: TrainArguments, store: Store, console: Console, line: LiveLine) -> Project:
    if options.task is not None:
        return read_project(store, _initial_state(store, options.task)["slyProjectId"])
    if options.project is not None:
        return _with_split_note(find_project(store, options.project), options, console)
    folder = options.data
    if options.app_state is not None and folder is None and not options.sample:
        return _named_project(options.app_state, store)
    if folder is None:
        folder = Path("data", "digits")
        line.show("generating the sample dataset")
        make_digits_dataset(folder)
    fingerprint = folder_fingerprint(folder)
    known = find_import(store, fingerprint)
    if known is not None:
        project = read_project(store, known)
        print_headline(console, "Using project", f"{project.name}: {folder} has not changed")
        return _with_split_note(project, options, console)
    project_id = import_folder(
        store,
        folder,
        console,
        line,
        check_classes=lambda known: check_classes(options.classes, known),
    )
    note_import(store, project_id, fingerprint)
    return read_project(store, project_id)


def _with_split_note(project: Project, options: TrainArguments, console: Console) -> Project:
    """Print which split is used, as an import does."""
    if options.split is None and options.app_state is None and not options.gui:
        print_notice(console, split_note(project))
    return project


def _named_project(path: Path, store: Store) -> Project:
    """Return the project that the settings of an experiment name.

    Raises:
        ConfigError: if they name none, or one that the instance does not have.
    """
    _, id_ = app_settings(read_app_state(path), path)
    remedy = "give --project, --data or --sample"
    if id_ is None:
        raise ConfigError(f"{path}: names no project; {remedy}")
    try:
        return read_project(store, id_)
    except NotFoundError as error:
        raise ConfigError(f"{path}: names project {id_}, which does not exist; {remedy}") from error


def _initial_state(store: Store, task_id: int) -> Json:
    """The settings with which a training was started.

    Raises:
        ConfigError: if the task is not a training.
        NotFoundError: if the task does not exist.
    """
    state: Json = store.tasks.info(task_id)["meta"]["params"]["state"]
    if "slyProjectId" not in state:
        raise ConfigError(f"--task {task_id} is not a training; see the instance's page")
    return state


def _state(
    options: TrainArguments, project: Project, store: Store, console: Console, line: LiveLine
) -> Json | None:
    """The settings for the app."""
    if options.task is not None:
        return _initial_state(store, options.task)["guiState"]
    if options.app_state is not None:
        return _read_app_state(options.app_state, project, console)
    classes = choose_classes(project, options.classes)
    split, num_train, num_val = choose_split(project, options.split)
    line.show("looking for pretrained weights")
    model, model_notice = pick_model(options.model)
    is_sample = options.project is None and options.data is None
    preset = sample_choices() if is_sample else None
    given = parse_overrides(options.update)
    if options.epochs is not None:
        given["epoches"] = options.epochs
    line.show("timing a few training steps")
    values, schedule_notice = hyperparameters_for(
        project, model, num_train, num_val, given, num_classes=len(classes), preset=preset
    )
    for notice in (model_notice, schedule_notice):
        if notice:
            print_notice(console, notice)
    return app_state(
        model=model,
        classes=classes,
        split=split,
        hyperparameters=yaml.safe_dump(values, sort_keys=False),
        experiment_name=options.name,
        benchmark=options.benchmark,
        speed_test=options.speedtest,
        exports=options.export,
    )


def _read_app_state(path: Path, project: Project, console: Console) -> Json:
    settings, project_id = app_settings(read_app_state(path), path)
    if project_id not in (None, project.id):
        print_notice(console, f"{path} names project {project_id}; training on {project.id}.")
    split = settings.get("train_val_split")
    if not isinstance(split, dict) or "method" not in split:
        raise ConfigError(
            f"{path}: train_val_split = {split!r}: give {{'method': 'random', 'split': 'train', "
            "'percent': 80}, or use the app_state.json of an experiment"
        )
    settings.setdefault("classes", list(project.classes))
    return {**settings, "start_training": True}


def follow(app: AppProcess, task_id: int) -> Iterator[tuple[list[Bar], list[Json]]]:
    """Follow a training until its process ends.

    Yields:
        New bars of the app, and new lines of the engine's log.jsonl.
    """
    log = GrowingFile(app.data_dir / "runs" / str(task_id) / "output" / "log.jsonl")
    has_ended = False
    while not has_ended:
        has_ended = app.process.poll() is not None  # before reading, to get the last lines
        yield list(app.app_log.new_bars()), [json.loads(line) for line in log.new_lines()]
        if not has_ended:
            time.sleep(_POLL_S)


class _Stages:
    """Shows the app's bars as headlines and in the live line."""

    def __init__(self, console: Console, line: LiveLine) -> None:
        self._console = console
        self._line = line
        self._shown: set[str] = set()

    def show(self, bar: Bar) -> None:
        """Show the progress of the app."""
        if bar.name.startswith(_HIDDEN_BARS):
            return
        headline = next((h for start, h in _STAGES.items() if bar.name.startswith(start)), None)
        if headline is not None and headline not in self._shown:
            self._shown.add(headline)
            print_headline(self._console, headline)
        self._line.show(bar.name, bar.done, bar.total, in_bytes=bar.in_bytes)


def _watch(app: AppProcess, task_id: int, console: Console, results: _PageResults | None) -> int:
    """Show the training until its process ends; return the exit code.

    Ctrl-C, SIGTERM and a closed terminal stop the app gracefully: it cannot upload without the
    instance.
    """
    before = {
        number: signal.signal(number, lambda *_: app.stop())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        with LiveLine(console) as line:
            if results is None:
                line.show("waiting for the app")
            else:
                results.wait(line)
            stages, view = _Stages(console, line), TrainingView(console, line)
            for bars, events in follow(app, task_id):
                for error in app.app_log.new_page_errors() if results is not None else ():
                    print_notice(console, error)
                for bar in bars:
                    if results is None or not results.is_waiting:
                        stages.show(bar)
                for event in events:
                    view.show(event)
                if results is not None:
                    results.show(line)
        return app.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
