"""A local instance for the tests, and a finished experiment on it."""

import pytest

from tests.sdk import import_sdk

import_sdk()


@pytest.fixture(scope="module")
def instance(tmp_path_factory):
    """A running instance with an empty team; it can inject faults."""
    from tests.faulty_instance import FaultyInstance

    with FaultyInstance(tmp_path_factory.mktemp("instance")) as running:
        yield running


@pytest.fixture(scope="session")
def experiment(tmp_path_factory, shared_folder):
    """The session's experiment; see `tests/app/experiment.py`."""
    from tests.app.experiment import shared_experiment

    own = tmp_path_factory.mktemp("experiment") / "instance"
    with shared_experiment(shared_folder / "shared_experiment", own) as finished:
        yield finished


@pytest.fixture
def launch(tmp_path):
    """Launches training apps, as the platform does, and kills those that a test leaves running.

    A second launch with the same `task_id` is a relaunch of the task.
    """
    from supervisely_integration.train.run_folder import RunFolder
    from tests.app.real_app import RunningApp, create_training_task

    launched = []

    def start(instance, project_id, state=None, *, task_id=None, development=False, **options):
        if task_id is None and not development:
            task_id = create_training_task(instance.store)
        app = RunningApp(
            server_address=instance.address,
            token=instance.token,
            project_id=project_id,
            data_dir=tmp_path / f"task_{task_id}",
            task_id=task_id,
            app_state=state,
            **options,
        )
        app.task_id = task_id
        app.runs = RunFolder(tmp_path / f"task_{task_id}", task_id or -1)
        launched.append((instance, app))
        return app

    yield start
    for instance, app in launched:
        app.kill()
        if app.task_id is not None:  # as the launcher does
            instance.store.tasks.set_status(app.task_id, "stopped")
