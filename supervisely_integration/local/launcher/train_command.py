"""`python -m supervisely_integration.local train`: instance, app and a view of both, in one."""

import argparse
import contextlib
import json
import shlex
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from rtdetrv2_pytorch.src.core.yaml_files import merge, parse_overrides
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.report.training_report import REPORT
from rtdetrv2_pytorch.tools.command_log import CommandLog
from rtdetrv2_pytorch.tools.console import (
    LiveLine,
    print_detail,
    print_headline,
    print_notice,
    print_path,
)
from rtdetrv2_pytorch.tools.training_view import TrainingView

from ...gui.libraries import missing_libraries
from ..emulator.ecosystem import training_app
from ..emulator.store import TEAM_ID, Store, StoreError
from ..instance import LocalInstance
from .app_log import AppError, Bar
from .app_process import STOP_SIGNAL, AppProcess, is_port_free
from .import_command import import_shown
from .selection import (
    Project,
    app_state,
    choose_classes,
    choose_split,
    find_import,
    find_project,
    folder_fingerprint,
    note_import,
    read_project,
)
from .train_options import EXPORTS
from .training import (
    find_experiment,
    follow,
    hyperparameters_for,
    model_names,
    pick_model,
    sample_choices,
)

# Headlines of what the app does, by how the names of its bars begin. The training has its own.
_STAGES = {
    "Preparing data": "Preparing data",
    "Uploading train artifacts": "Uploading the experiment",
    "Starting Model Benchmark": "Evaluating the best checkpoint",
    "Export: ": "Exporting the best checkpoint",
}
_CHOICES = ("model", "epochs", "classes", "split", "name", "update", "speedtest", "export")
_CHOOSE_INSTEAD = {  # what brings choices of its own, and the options that then do not count
    "task": ("project", "data", "app_state", *_CHOICES),
    "gui": ("app_state", *_CHOICES),
    "app_state": _CHOICES,
}
_OF_TRAINING = ("Epochs", "Steps", "Training is in progress")  # the engine's log says more


def run(args: argparse.Namespace, console: Console, log: CommandLog) -> int:
    """Train; returns the exit code, 0 only for a complete experiment.

    Raises:
        RTDETRError: if what was asked for cannot be done.
        StoreError: the same, said by the instance.
    """
    if not is_port_free(args.port):
        raise ConfigError(
            f"port {args.port} is taken: one app runs at a time; end the other one, or choose "
            "another --port"
        )
    unused = _unused(args)
    if unused:
        print_notice(console, unused)
    with LocalInstance(args.root) as instance:
        store = instance.store
        with LiveLine(console) as line:
            project = _project(args, store, console, line)
            state = None if args.gui else _state(args, project, store, console, line)
        task_id, app = _start(args, instance, project, state)
        with app:  # at the end of which goes what the app left behind: TensorBoard
            log.open(app.log_file)  # one for both processes
            about = f"as task {task_id}, on project {project.name}"
            print_headline(console, "Starting the app", about)
            if args.gui:
                _show_page(store, task_id, app, console)
            code = _watch(app, task_id, console)
        if code == -STOP_SIGNAL:  # while nothing was trained
            store.tasks.set_status(task_id, "stopped")
            print_notice(console, "The app was ended before it had trained anything.")
            print_path(console, app.log_file)
            return 1
        info = conclude(store, task_id, code, app)
        _show_experiment(store, info, state, app, console)
        if args.gui:
            _show_results(instance, console)
        return 0


def _unused(args: argparse.Namespace) -> str:
    """Options that were given and do not count, for people."""
    for way, others in _CHOOSE_INSTEAD.items():
        given = [_option(name) for name in others if getattr(args, name)]
        if getattr(args, way) and given:
            return f"not used beside {_option(way)}: {', '.join(given)}"
    return ""


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _start(
    args: argparse.Namespace,
    instance: LocalInstance,
    project: Project,
    state: Mapping[str, Any] | None,
) -> tuple[int, AppProcess]:
    """Make a task, or take one up again, and start its app."""
    store = instance.store
    task_id = args.task
    if task_id is None:
        task_id = store.tasks.create(
            app={
                **{key: training_app()[key] for key in ("id", "name")},
                "version": "local",
                "address": f"http://127.0.0.1:{args.port}",
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
        port=args.port,
    )
    store.tasks.set_status(task_id, "started")
    return task_id, app


def _show_page(store: Store, task_id: int, app: AppProcess, console: Console) -> None:
    """Wait until the app's page answers, and say where it is."""
    try:
        with LiveLine(console) as line:
            line.show("waiting for the app")
            app.wait_until_ready()
    except BaseException:
        store.tasks.set_status(task_id, "stopped")
        raise
    print_headline(console, "The app's page")
    print_path(console, app.address)
    if missing_libraries():
        print_notice(console, "It is not built yet: `make page` does that, once.")


def _show_results(instance: LocalInstance, console: Console) -> None:
    """Keep the instance for whoever follows the links of the app's page; the app has ended."""
    print_headline(console, "Projects and experiments", "until Ctrl-C")
    print_path(console, instance.page_address)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def _project(args: argparse.Namespace, store: Store, console: Console, line: LiveLine) -> Project:
    if args.task is not None:
        return read_project(store, _started_with(store, args.task)["slyProjectId"])
    if args.project is not None:
        return find_project(store, args.project)
    folder = args.data
    if folder is None:
        folder = Path("data", "digits")
        line.show("making the sample data set")
        make_digits_dataset(folder)
    fingerprint = folder_fingerprint(folder)
    known = find_import(store, fingerprint)
    if known is not None:
        project = read_project(store, known)
        print_headline(console, "Using project", f"{project.name}: {folder} has not changed")
        return project
    project_id = import_shown(store, folder, console, line)
    note_import(store, project_id, fingerprint)
    return read_project(store, project_id)


def _started_with(store: Store, task_id: int) -> dict[str, Any]:
    """What a training was started with.

    Raises:
        ConfigError: if the task is no training.
        NotFoundError: if there is no such task.
    """
    state: dict[str, Any] = store.tasks.info(task_id)["meta"]["params"]["state"]
    if "slyProjectId" not in state:
        raise ConfigError(
            f"--task {task_id}: is no training that can go on; see the instance's page"
        )
    return state


def _state(
    args: argparse.Namespace, project: Project, store: Store, console: Console, line: LiveLine
) -> dict[str, Any] | None:
    if args.task is not None:  # an interrupted run knows better
        return _started_with(store, args.task)["guiState"]
    if args.app_state is not None:
        try:
            state = json.loads(args.app_state.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{args.app_state}: cannot be read ({error})") from error
        if not isinstance(state, dict):
            raise ConfigError(
                f"{args.app_state}: holds no settings; give the app_state.json of an experiment"
            )
        return {**state, "start_training": True}
    classes = choose_classes(project, args.classes)
    split, num_train, num_val = choose_split(project, args.split)
    line.show("looking for weights to start from")
    model, told = pick_model(args.model)
    if model not in model_names():
        raise ConfigError(f"--model {model!r}: unknown; there are {', '.join(model_names())}")
    is_sample = args.project is None and args.data is None
    given = merge(sample_choices() if is_sample else {}, parse_overrides(args.update))
    if args.epochs is not None:
        given["epoches"] = args.epochs
    line.show("timing a few steps to choose what fits this machine")
    values, choice = hyperparameters_for(project, model, num_train, num_val, given)
    for said in (told, choice):
        if said:
            print_notice(console, said)
    return app_state(
        model=model,
        classes=classes,
        split=split,
        hyperparameters=yaml.safe_dump(values, sort_keys=False),
        experiment_name=args.name,
        benchmark=args.benchmark,
        speed_test=args.speedtest,
        exports=args.export,
    )


class _Stages:
    """Turns the app's bars into headlines and the live line."""

    def __init__(self, console: Console, line: LiveLine) -> None:
        self._console = console
        self._line = line
        self._begun: set[str] = set()

    def show(self, bar: Bar) -> None:
        """Show what the app does."""
        what = bar.what
        if what.startswith(_OF_TRAINING):
            return
        headline = next((h for name, h in _STAGES.items() if what.startswith(name)), None)
        if headline is not None and headline not in self._begun:
            self._begun.add(headline)
            print_headline(self._console, headline)
        self._line.show(what, bar.done, bar.total, in_bytes=bar.in_bytes)


def _watch(app: AppProcess, task_id: int, console: Console) -> int:
    """Show the training until its process ends; Ctrl-C asks it to end, as the platform would.

    So do a signal to end and a closed terminal: the app would go on without its instance.
    """
    before = {
        number: signal.signal(number, lambda *_: app.stop())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        with LiveLine(console) as line:
            line.show("waiting for the app")
            stages, view = _Stages(console, line), TrainingView(console, line)
            for bars, events in follow(app, task_id):
                for bar in bars:
                    stages.show(bar)
                for event in events:
                    view.show(event)
        return app.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def conclude(store: Store, task_id: int, code: int, app: AppProcess) -> dict[str, Any]:
    """Note how a training ended; returns its `experiment_info.json`.

    Args:
        store: of the instance.
        task_id: of the training.
        code: exit code of the app's process.
        app: that has ended.

    Raises:
        AppError: if there is no complete experiment.
    """
    if code != 0:
        error = app.app_log.failure(code)
        store.tasks.set_status(task_id, "error", error=str(error))
        if error.name != ConfigError.__name__:  # it would say the same again
            options = shlex.join(["--task", str(task_id), "--root", str(store.root)])
            error.go_on = f"python -m supervisely_integration.local train {options}"
        raise error
    try:
        info = find_experiment(store, task_id)
    except (FileNotFoundError, StoreError) as error:
        store.tasks.set_status(task_id, "stopped")
        raise AppError(f"no experiment: {error}", app.log_file) from error
    store.tasks.set_status(task_id, "finished")
    return info


def _show_experiment(
    store: Store,
    info: Mapping[str, Any],
    state: Mapping[str, Any] | None,
    app: AppProcess,
    console: Console,
) -> None:
    """Say how good it is, what of it is missing, and where it is."""
    evaluation = _evaluation(info)
    if evaluation:
        print_detail(console, evaluation)
    options = (state or {}).get("options", {})
    for line in _missing(options, info, app.app_log.shortcomings()):
        print_notice(console, line)
    folder = info["artifacts_dir"].rstrip("/")
    print_headline(console, "In Team Files", "of the instance")
    print_path(console, f"{folder}/")
    if store.files.entries(TEAM_ID, f"{folder}/{REPORT}"):
        print_path(console, f"{folder}/{REPORT}")
    for name in EXPORTS.values():
        if name in info["export"]:
            print_path(console, f"{folder}/{info['export'][name]}")
    print_headline(console, "The log")
    print_path(console, app.log_file)


def _missing(
    options: Mapping[str, Any], info: Mapping[str, Any], shortcomings: Sequence[str]
) -> list[str]:
    """What was asked for and is not there, and why, in the app's words."""
    missing = [
        (f"no export for {runtime}", "but not its exports: ")
        for runtime in EXPORTS.values()
        if options.get("export", {}).get(runtime) and runtime not in info["export"]
    ]
    if options.get("model_benchmark", {}).get("enable") and not info["evaluation_metrics"]:
        missing.append(("no evaluation report", "but it has no evaluation report: "))
    lines = []
    for what, words in missing:
        reasons = [said.partition(words)[2] for said in shortcomings if words in said]
        lines.append(f"{what}; {reasons[-1] if reasons else 'the log says why'}")
    return lines


def _evaluation(info: Mapping[str, Any]) -> str:
    """What the evaluation report says."""
    metrics = info["evaluation_metrics"]
    if not metrics:
        return ""
    return (
        f"evaluation: mAP {metrics['mAP']:.3f}, AP50 {metrics['AP50']:.3f}, "
        f"F1 {metrics['f1']:.3f} at confidence {metrics['f1_optimal_conf']:.2f}"
    )
