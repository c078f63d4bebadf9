"""The tables. JSON columns hold values that the server stores and returns unchanged."""

VERSION = 1

SCHEMA = (
    """CREATE TABLE teams (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, description TEXT NOT NULL,
        created_at TEXT NOT NULL, updated_at TEXT NOT NULL, archived_at TEXT)""",
    """CREATE TABLE workspaces (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        team_id INTEGER NOT NULL REFERENCES teams ON DELETE CASCADE,
        name TEXT NOT NULL, description TEXT NOT NULL, is_hidden INTEGER NOT NULL DEFAULT 0,
        created_at TEXT NOT NULL, updated_at TEXT NOT NULL, archived_at TEXT)""",
    """CREATE TABLE projects (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        workspace_id INTEGER NOT NULL REFERENCES workspaces ON DELETE CASCADE,
        name TEXT NOT NULL, description TEXT NOT NULL, type TEXT NOT NULL, readme TEXT NOT NULL,
        meta TEXT NOT NULL, settings TEXT NOT NULL, custom_data TEXT NOT NULL,
        import_settings TEXT NOT NULL, extra TEXT NOT NULL, backup_archive TEXT,
        created_at TEXT NOT NULL, updated_at TEXT NOT NULL, archived_at TEXT)""",
    """CREATE TABLE datasets (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        project_id INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
        parent_id INTEGER REFERENCES datasets ON DELETE CASCADE,
        name TEXT NOT NULL, description TEXT NOT NULL, custom_data TEXT NOT NULL,
        created_at TEXT NOT NULL, updated_at TEXT NOT NULL, archived_at TEXT)""",
    """CREATE INDEX projects_of_workspace ON projects (workspace_id)""",
    """CREATE UNIQUE INDEX dataset_names ON datasets (project_id, ifnull(parent_id, 0), name)
        WHERE archived_at IS NULL""",
    # An unreferenced blob is removed, but not before `reserved_until`: a client that asked for
    # known hashes will reference it.
    """CREATE TABLE blobs (
        hash TEXT PRIMARY KEY, size INTEGER NOT NULL, mime TEXT, width INTEGER, height INTEGER,
        reserved_until TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE images (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        dataset_id INTEGER NOT NULL REFERENCES datasets ON DELETE CASCADE,
        name TEXT NOT NULL, hash TEXT NOT NULL REFERENCES blobs, mime TEXT NOT NULL,
        size INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
        meta TEXT NOT NULL, custom_data TEXT NOT NULL, description TEXT NOT NULL,
        created_at TEXT NOT NULL, updated_at TEXT NOT NULL, archived_at TEXT)""",
    """CREATE UNIQUE INDEX image_names ON images (dataset_id, name) WHERE archived_at IS NULL""",
    # The unique indexes exclude archived rows, so removals need separate indexes.
    """CREATE INDEX datasets_of_project ON datasets (project_id)""",
    """CREATE INDEX datasets_of_parent ON datasets (parent_id)""",
    """CREATE INDEX images_of_dataset ON images (dataset_id)""",
    """CREATE INDEX image_hashes ON images (hash)""",
    """CREATE TABLE image_tags (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        image_id INTEGER NOT NULL REFERENCES images ON DELETE CASCADE,
        tag_id INTEGER NOT NULL, value TEXT NOT NULL, extra TEXT NOT NULL,
        created_at TEXT NOT NULL, updated_at TEXT NOT NULL)""",
    """CREATE INDEX image_tags_of_image ON image_tags (image_id)""",
    """CREATE TABLE figures (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        image_id INTEGER NOT NULL REFERENCES images ON DELETE CASCADE,
        class_id INTEGER NOT NULL, geometry_type TEXT NOT NULL, geometry TEXT NOT NULL,
        extra TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL)""",
    """CREATE INDEX figures_of_image ON figures (image_id)""",
    """CREATE TABLE figure_tags (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        figure_id INTEGER NOT NULL REFERENCES figures ON DELETE CASCADE,
        tag_id INTEGER NOT NULL, value TEXT NOT NULL, extra TEXT NOT NULL,
        created_at TEXT NOT NULL, updated_at TEXT NOT NULL)""",
    """CREATE INDEX figure_tags_of_figure ON figure_tags (figure_id)""",
    """CREATE TABLE meta_ids (id INTEGER PRIMARY KEY AUTOINCREMENT)""",
    """CREATE TABLE collections (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        project_id INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
        name TEXT NOT NULL, description TEXT NOT NULL, type TEXT NOT NULL, options TEXT NOT NULL,
        meta TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL)""",
    """CREATE TABLE collection_items (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        collection_id INTEGER NOT NULL REFERENCES collections ON DELETE CASCADE,
        image_id INTEGER NOT NULL REFERENCES images ON DELETE CASCADE,
        meta TEXT NOT NULL, created_at TEXT NOT NULL, UNIQUE (collection_id, image_id))""",
    """CREATE INDEX collections_of_image ON collection_items (image_id)""",
    """CREATE TABLE files (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        team_id INTEGER NOT NULL REFERENCES teams ON DELETE CASCADE,
        path TEXT NOT NULL, hash TEXT NOT NULL REFERENCES blobs, size INTEGER NOT NULL,
        mime TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
        UNIQUE (team_id, path))""",
    """CREATE INDEX file_hashes ON files (hash)""",
    """CREATE TABLE tasks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        team_id INTEGER NOT NULL REFERENCES teams ON DELETE CASCADE,
        workspace_id INTEGER NOT NULL REFERENCES workspaces ON DELETE CASCADE,
        type TEXT NOT NULL, status TEXT NOT NULL, description TEXT NOT NULL, meta TEXT NOT NULL,
        settings TEXT NOT NULL, data TEXT NOT NULL, state TEXT NOT NULL, error TEXT,
        created_at TEXT NOT NULL, updated_at TEXT NOT NULL, started_at TEXT, finished_at TEXT)""",
    """CREATE TABLE workflow (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        task_id INTEGER NOT NULL REFERENCES tasks ON DELETE CASCADE,
        direction TEXT NOT NULL, type TEXT NOT NULL, target TEXT NOT NULL, meta TEXT NOT NULL,
        created_at TEXT NOT NULL)""",
    """CREATE TABLE versions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        project_id INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
        version INTEGER NOT NULL, status TEXT NOT NULL, commit_token TEXT NOT NULL,
        project_updated_at TEXT, team_file_id INTEGER, title TEXT, description TEXT,
        preview_project_id INTEGER, created_at TEXT NOT NULL, updated_at TEXT NOT NULL)""",
    """CREATE INDEX versions_of_project ON versions (project_id, version)""",
)
