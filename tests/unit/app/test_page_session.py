"""`local train --gui` follows the trainings that a person starts on the page."""

from types import SimpleNamespace

from rich.console import Console

from supervisely_integration.local.launcher import train_session
from supervisely_integration.local.launcher.app_log import Bar
from supervisely_integration.task_status import StatusReporter


def test_bars_are_shown_only_while_a_training_runs(tmp_path, monkeypatch):
    shown = []
    status = StatusReporter(tmp_path)

    def follow(app, task_id):
        def bar(name):
            return [Bar(name, 0, 10, in_bytes=False)], []

        yield bar("any name before")
        status.start()
        yield [], []
        yield bar("downloading")
        status.wait()  # the training failed
        yield bar("uploading")
        yield bar("any name after")
        status.start()
        yield [], []
        yield bar("downloading again")

    monkeypatch.setattr(train_session, "follow", follow)
    monkeypatch.setattr(
        train_session.LiveLine, "show", lambda self, text, *_, **__: shown.append(text)
    )
    app = SimpleNamespace(
        data_dir=tmp_path,
        address="http://127.0.0.1:8000",
        app_log=SimpleNamespace(new_page_errors=lambda: ()),
        wait=lambda: 0,
    )
    console = Console()
    results = train_session._PageResults(None, 1, app, console)
    assert train_session._watch(app, 1, console, results) == 0
    waiting = "open the page http://127.0.0.1:8000: press Start"
    assert shown == [waiting, "downloading", "uploading", waiting, "downloading again"]
