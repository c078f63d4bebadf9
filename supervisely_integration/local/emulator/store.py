"""All data of an instance in one folder: a SQLite file and a folder of blobs."""

from contextlib import AbstractContextManager
from pathlib import Path

from .storage.annotations import ImageAnnotations
from .storage.blobs import Blobs
from .storage.collections import Collections
from .storage.datasets import Datasets
from .storage.images import Images
from .storage.projects import Projects
from .storage.sql.database import Database
from .storage.sql.errors import ConflictError, InvalidRequestError, NotFoundError, StoreError
from .storage.tasks import Tasks
from .storage.team_files import TeamFiles
from .storage.teams import TEAM_ID, WORKSPACE_ID, Teams, Workspaces
from .storage.versions import Versions

__all__ = [
    "TEAM_ID",
    "WORKSPACE_ID",
    "ConflictError",
    "InvalidRequestError",
    "NotFoundError",
    "Store",
    "StoreError",
]


class Store:
    """The data of an instance, one attribute per resource.

    Threads and processes may use the same root concurrently, with one `Store` each or a shared
    one. A change is on disk when its method returns.

    Args:
        root: folder; created if it does not exist.

    Raises:
        RuntimeError: if a newer version of this program created the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)  # its files are of the owner only: the database, logs, the token
        self.database = Database(self.root / "instance.sqlite")
        self.blobs = Blobs(self.database, self.root / "blobs")
        self.teams = Teams(self)
        self.workspaces = Workspaces(self)
        self.projects = Projects(self)
        self.datasets = Datasets(self)
        self.images = Images(self)
        self.annotations = ImageAnnotations(self)
        self.collections = Collections(self)
        self.versions = Versions(self)
        self.files = TeamFiles(self)
        self.tasks = Tasks(self)
        self.workspaces.ensure_first()

    def transaction(self) -> AbstractContextManager[object]:
        """Commit all changes inside, or none; much faster for many small writes.

        Other writers wait: limit it to seconds.
        """
        return self.database.transaction()

    def clean(self) -> None:
        """Remove unreferenced blobs and the partial uploads of killed processes."""
        self.blobs.sweep_all()
        self.blobs.remove_unfinished()

    def close(self) -> None:
        """Close the connection of this thread."""
        self.database.close()
