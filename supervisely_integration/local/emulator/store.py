"""Everything an instance keeps, under one folder: a SQLite file and a folder of blobs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .storage.annotations import Annotations
from .storage.blobs import Blobs
from .storage.database import Database
from .storage.datasets import Datasets
from .storage.entity_collections import Collections
from .storage.errors import ConflictError, InvalidRequestError, NotFoundError, StoreError
from .storage.images import Images, NewImage
from .storage.projects import Projects
from .storage.statistics import project_extent, project_statistics
from .storage.tasks import Tasks
from .storage.team_files import TeamFiles
from .storage.teams import Teams, Workspaces
from .storage.versions import Versions
from .storage.workflow import Workflow

__all__ = [
    "TEAM_ID",
    "WORKSPACE_ID",
    "ConflictError",
    "InvalidRequestError",
    "NotFoundError",
    "Store",
    "StoreError",
]

TEAM_ID = 1
WORKSPACE_ID = 1


class Store:
    """The data of an instance.

    Threads and processes may use the same root at once, with a `Store` each or one for all. What a
    method has returned from is on disk. Each noun is an attribute (`projects`, `files`, ...); the
    methods here are what a program that fills a project, or runs a task, needs.

    Args:
        root: folder; made if it does not exist.

    Raises:
        RuntimeError: if a newer version of this program wrote the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self.database = Database(self.root / "instance.sqlite")
        self.blobs = Blobs(self.database, self.root / "blobs")
        self.teams = Teams(self.database)
        self.workspaces = Workspaces(self.database)
        self.projects = Projects(self.database, self.blobs)
        self.datasets = Datasets(self.database, self.projects, self.blobs)
        self.images = Images(self.database, self.projects, self.datasets, self.blobs)
        self.annotations = Annotations(self.database, self.projects, self.images)
        self.collections = Collections(self.database, self.projects)
        self.versions = Versions(self.database, self.projects)
        self.files = TeamFiles(self.database, self.blobs)
        self.tasks = Tasks(self.database)
        self.workflow = Workflow(self.database, self.tasks)
        self.teams.ensure_first()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write everything inside at its end, or nothing; much faster for many small writes.

        Others cannot write meanwhile: keep it to seconds.
        """
        with self.database.transaction():
            yield

    def create_project(self, name: str, meta: Mapping[str, Any] | None = None) -> int:
        """Add a project to the first workspace; returns its id.

        Args:
            name: not taken in the workspace.
            meta: `meta.json` of a project in Supervisely format: `classes` and `tags`.

        Raises:
            ConflictError: if the name is taken.
        """
        return self.projects.create(WORKSPACE_ID, name, meta=meta)

    def free_project_name(self, name: str) -> str:
        """The name, or the name with the first free number behind it."""
        taken = {
            row["name"]
            for row in self.database.rows(
                "SELECT name FROM projects WHERE workspace_id = ? AND archived_at IS NULL",
                (WORKSPACE_ID,),
            )
        }
        candidate, number = name, 0
        while candidate in taken:
            number += 1
            candidate = f"{name}_{number:03d}"
        return candidate

    def create_dataset(self, project_id: int, name: str, parent_id: int | None = None) -> int:
        """Add a dataset, in another one if `parent_id` is given; returns its id.

        Raises:
            NotFoundError: if project or parent do not exist.
            ConflictError: if the name is taken there.
        """
        return self.datasets.create(project_id, name, parent_id=parent_id)

    def add_image(
        self,
        dataset_id: int,
        name: str,
        source: Path | bytes,
        *,
        meta: Mapping[str, Any] | None = None,
    ) -> int:
        """Add an image; returns its id. Equal contents are kept once.

        Args:
            dataset_id: where.
            name: not taken in the dataset, with an extension.
            source: a local file, or the bytes of one.
            meta: free for the client.

        Raises:
            InvalidRequestError: if the source cannot be read as an image.
            ConflictError: if the name is taken.
            OSError: if the local file cannot be read.
        """
        hash_ = self.images.store_contents(source, name)
        return self.images.add(dataset_id, [NewImage(name, hash_, meta or {})])[0]

    def set_annotation(self, image_id: int, annotation: Mapping[str, Any]) -> None:
        """Replace what is drawn on an image.

        Args:
            image_id: of the image.
            annotation: the SDK's JSON as its server gets it (`objects`, `tags`, `description`);
                classes and tags by name.

        Raises:
            InvalidRequestError: for a class or tag that the project does not have.
        """
        self.annotations.set(image_id, annotation)

    def statistics(self, project_id: int) -> dict[str, Any]:
        """Counts by class, tag and dataset, as `projects.stats` answers."""
        return project_statistics(self.database, self.projects, project_id)

    def extent(self, project_id: int) -> tuple[int, int]:
        """The longest side of an image in pixels, and the most objects in one image."""
        return project_extent(self.database, project_id)

    def create_task(self, *, app: Mapping[str, Any], state: Mapping[str, Any] | None = None) -> int:
        """Add a task for a run of an app to the first workspace, queued; returns its id.

        Args:
            app: `id`, `name` and `version` of the app.
            state: what it is started with, the `modal.state` of the platform.
        """
        return self.tasks.create(WORKSPACE_ID, app=app, state=state or {})

    def set_task_status(self, task_id: int, status: str, *, error: str | None = None) -> None:
        """Note that a task is `started`, `finished`, `stopped` or in `error`, and why."""
        self.tasks.set_status(task_id, status, error=error)

    def remove_files(self, paths: Sequence[str]) -> int:
        """Remove files and folders of Team Files; returns how many files."""
        return self.files.remove(TEAM_ID, paths)

    def clean(self) -> None:
        """Remove what nothing refers to and what crashed uploads left behind."""
        self.blobs.sweep_all()
        self.blobs.remove_unfinished()

    def close(self) -> None:
        """Close the connection of this thread."""
        self.database.close()
