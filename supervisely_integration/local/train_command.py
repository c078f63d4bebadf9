"""`python -m supervisely_integration.local train`: instance, app and a view of both, in one."""

import argparse
import contextlib
import json
import signal
import threading
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from rtdetrv2_pytorch.src.core.yaml_files import merge, parse_overrides
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.report.training_report import REPORT

from ..gui.libraries import missing_libraries
from .app_process import AppProcess, is_port_free
from .ecosystem import training_app
from .importers import import_folder
from .instance import LocalInstance
from .selection import (
    Project,
    app_state,
    choose_classes,
    choose_split,
    find_import,
    find_project,
    folder_fingerprint,
    note_import,
)
from .store import TEAM_ID, Store, StoreError
from .train_options import EXPORTS
from .training import (
    find_experiment,
    follow,
    hyperparameters_for,
    model_names,
    pick_model,
    run_task,
    sample_choices,
)

_TAIL_LINES = 15  # of the log, shown after a failure


def run(args: argparse.Namespace, console: Console) -> int:
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
    with LocalInstance(args.root) as instance:
        store = instance.store
        project = _project(args, store, console)
        state = None if args.gui else _state(args, project, store, console)

        def start(task_id: int, data_dir: Path) -> AppProcess:
            return AppProcess(
                server_address=instance.address,
                token=instance.token,
                project_id=project.id,
                data_dir=data_dir,
                task_id=task_id,
                app_state=state,
                port=args.port,
            )

        task_id, data_dir, app = run_task(
            store,
            start,
            app={
                **{key: training_app()[key] for key in ("id", "name")},
                "version": "local",
                "address": f"http://127.0.0.1:{args.port}",
            },
            state={"slyProjectId": project.id, "guiState": state},
            task_id=args.task,
        )
        console.print(f"Task {task_id} on project {escape(project.name)}; log: {app.log_file}")
        if args.gui:
            app.wait_until_ready()
            console.print(f"The app's page: {app.address}")
            if missing_libraries():
                console.print("It is not built yet: `make page` does that, once.")
        code = _watch(app, data_dir, task_id, console)
        code = _conclude(store, task_id, code, app, console)
        if args.gui and code == 0:
            _show_results(instance, console)
        return code


def _show_results(instance: LocalInstance, console: Console) -> None:
    """Keep the instance for whoever follows the links of the app's page; the app has ended."""
    console.print(f"Projects and experiments: {instance.page_address} (Ctrl-C ends)")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def _project(args: argparse.Namespace, store: Store, console: Console) -> Project:
    if args.task is not None:
        state = store.tasks.info(args.task)["meta"]["params"]["state"]
        return find_project(store, str(state["slyProjectId"]))
    if args.project is not None:
        return find_project(store, args.project)
    folder = args.data
    if folder is None:
        folder = Path("data", "digits")
        with console.status("making the sample data set"):
            make_digits_dataset(folder)
    fingerprint = folder_fingerprint(folder)
    known = find_import(store, fingerprint)
    if known is not None:
        console.print(f"{folder}: not changed since it was imported", markup=False)
        return find_project(store, str(known))
    name = store.free_project_name(folder.resolve().name)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(f"importing {name}", total=None)
        report = import_folder(
            store,
            folder,
            name=name,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    note_import(store, report.project_id, fingerprint)
    for line in report.lines():
        console.print(line, markup=False, highlight=False)
    return find_project(store, str(report.project_id))


def _state(
    args: argparse.Namespace, project: Project, store: Store, console: Console
) -> dict[str, Any] | None:
    if args.task is not None:  # what it was started with; an interrupted run knows better
        stored: dict[str, Any] | None = store.tasks.info(args.task)["meta"]["params"]["state"][
            "guiState"
        ]
        return stored
    if args.app_state is not None:
        try:
            state: dict[str, Any] = json.loads(args.app_state.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{args.app_state}: cannot be read ({error})") from error
        return {**state, "start_training": True}
    model, told = pick_model(args.model)
    if model not in model_names():
        raise ConfigError(f"--model {model!r}: unknown; there are {', '.join(model_names())}")
    split, num_train, num_val = choose_split(project, args.split)
    is_sample = args.project is None and args.data is None
    given = merge(sample_choices() if is_sample else {}, parse_overrides(args.update))
    if args.epochs is not None:
        given["epoches"] = args.epochs
    with console.status("timing a few steps to choose what fits this machine"):
        values, choice = hyperparameters_for(project, model, num_train, num_val, given)
    for line in (told, choice):
        if line:
            console.print(line, markup=False, highlight=False)
    return app_state(
        model=model,
        classes=choose_classes(project, args.classes),
        split=split,
        hyperparameters=yaml.safe_dump(values, sort_keys=False),
        experiment_name=args.name,
        benchmark=args.benchmark,
        speed_test=args.speedtest,
        exports=args.export,
    )


class _View:
    """Turns the engine's log into bars and lines."""

    def __init__(self, console: Console, bar: Progress) -> None:
        self.console = console
        self._bar = bar
        self._task: TaskID = bar.add_task("Starting", total=None, details="")
        self._epochs = 0

    def status(self, text: str) -> None:
        """Show what the app says it does."""
        if "progress" not in text:
            self._bar.update(self._task, description=text, total=None, details="")

    def event(self, event: dict[str, Any]) -> None:
        """Show one line of log.jsonl."""
        kind = event["event"]
        if kind == "plan":
            self._epochs = event["epochs"]
        elif kind == "step":
            self._bar.update(
                self._task,
                description=f"epoch {event['epoch'] + 1}/{self._epochs}",
                total=event["num_steps"],
                completed=event["step"] + 1,
                details=f"loss {event['loss']:.3f}  {event['images_per_s']:.1f} img/s",
            )
        elif kind == "epoch":
            best = "  best so far" if event["is_best"] else ""
            self.console.print(
                f"epoch {event['epoch'] + 1:>3}/{self._epochs}  AP {event['AP']:.3f}  "
                f"AP50 {event['AP50']:.3f}  loss {event['train_loss']:.3f}  "
                f"val loss {event['val_loss']:.3f}{best}",
                highlight=False,
            )
        elif kind == "end" and event["best"]:
            self.console.print(
                f"best: epoch {event['best_epoch'] + 1}, AP {event['best']['AP']:.3f}, "
                f"AP50 {event['best']['AP50']:.3f}",
                highlight=False,
            )


def _watch(app: AppProcess, data_dir: Path, task_id: int, console: Console) -> int:
    """Show the training until its process ends; Ctrl-C asks it to end, as the platform would.

    So do a signal to end and a closed terminal: the app would go on without its instance.
    """
    before = {
        number: signal.signal(number, lambda *_: app.stop())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    columns = (TextColumn("[bold]{task.description}"), BarColumn(bar_width=24))
    details = (MofNCompleteColumn(), TextColumn("{task.fields[details]}"))
    try:
        with Progress(*columns, *details, console=console, transient=True) as bar:
            view = _View(console, bar)
            for moment in follow(app, data_dir, task_id):
                view.status(moment.status)
                for event in moment.events:
                    view.event(event)
        return app.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        app.kill()  # what it left behind: TensorBoard


def _conclude(store: Store, task_id: int, code: int, app: AppProcess, console: Console) -> int:
    if code < 0:  # by a signal, while nothing was trained
        store.set_task_status(task_id, "stopped")
        console.print("The app was ended.")
        return 1
    if code != 0:
        store.set_task_status(task_id, "error", error=app.log_tail(1))
        console.print(app.log_tail(_TAIL_LINES), style="dim", markup=False, highlight=False)
        console.print(f"[bold red]The app ended with code {code}[/]; the whole log:")
        console.print(str(app.log_file), markup=False, highlight=False)
        console.print(f"Go on with: python -m supervisely_integration.local train --task {task_id}")
        return 1
    try:
        info = find_experiment(store, task_id)
    except (FileNotFoundError, StoreError) as error:
        store.set_task_status(task_id, "stopped")
        console.print(f"no experiment: {error}", markup=False)
        return 1
    store.set_task_status(task_id, "finished")
    folder = info["artifacts_dir"].rstrip("/")
    console.print(f"experiment: {info['artifacts_dir']}", markup=False, highlight=False)
    if store.files.entries(TEAM_ID, f"{folder}/{REPORT}"):
        console.print(f"report: {folder}/{REPORT}", markup=False, highlight=False)
    evaluation = _evaluation(store, task_id, info, app.log_file)
    if evaluation:
        console.print(evaluation, markup=False, highlight=False)
    for line in _exports(store, task_id, info, app.log_file):
        console.print(line, markup=False, highlight=False)
    return 0


def _asked(store: Store, task_id: int) -> dict[str, Any]:
    """The options that the task was started with."""
    state = store.tasks.info(task_id)["meta"]["params"]["state"]["guiState"] or {}
    options: dict[str, Any] = state.get("options", {})
    return options


def _exports(store: Store, task_id: int, info: dict[str, Any], log: Path) -> list[str]:
    """Which exports there are, and which there are not although they were asked for."""
    asked = _asked(store, task_id).get("export", {})
    return [
        f"export: {info['export'][runtime]}"
        if runtime in info["export"]
        else f"no export for {runtime}; {log} says why"
        for runtime in EXPORTS.values()
        if runtime in info["export"] or asked.get(runtime)
    ]


def _evaluation(store: Store, task_id: int, info: dict[str, Any], log: Path) -> str:
    """What the evaluation report says, or that there is none although it was asked for."""
    metrics = info["evaluation_metrics"]
    if metrics:
        return (
            f"evaluation: mAP {metrics['mAP']:.3f}, AP50 {metrics['AP50']:.3f}, "
            f"F1 {metrics['f1']:.3f} at confidence {metrics['f1_optimal_conf']:.2f}"
        )
    asked = _asked(store, task_id).get("model_benchmark", {}).get("enable", False)
    return f"no evaluation report; {log} says why" if asked else ""
