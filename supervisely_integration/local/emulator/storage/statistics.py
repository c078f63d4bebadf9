"""Counts of objects and tags in a project, in the format of `projects.stats`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from .meta import Meta
from .sql.database import Database

Counts = dict[int, dict[int, int]]  # class or tag -> dataset -> count

_FROM_FIGURES = """FROM figures f JOIN images i ON i.id = f.image_id
    JOIN datasets d ON d.id = i.dataset_id WHERE d.project_id = ? AND i.archived_at IS NULL"""
_QUERIES = {
    "images_of_class": "SELECT f.class_id, i.dataset_id, count(DISTINCT i.id) " + _FROM_FIGURES,
    "objects_of_class": "SELECT f.class_id, i.dataset_id, count(*) " + _FROM_FIGURES,
    "image_tags": """SELECT t.tag_id, i.dataset_id, count(*) FROM image_tags t
        JOIN images i ON i.id = t.image_id JOIN datasets d ON d.id = i.dataset_id
        WHERE d.project_id = ? AND i.archived_at IS NULL""",
    "object_tags": """SELECT t.tag_id, i.dataset_id, count(*) FROM figure_tags t
        JOIN figures f ON f.id = t.figure_id JOIN images i ON i.id = f.image_id
        JOIN datasets d ON d.id = i.dataset_id
        WHERE d.project_id = ? AND i.archived_at IS NULL""",
}


def project_statistics(database: Database, project_id: int, meta: Meta) -> dict[str, Any]:
    """Return counts by class, tag and dataset, including those that are 0."""
    counts = {name: _count(database, sql, project_id) for name, sql in _QUERIES.items()}
    datasets = database.rows(
        "SELECT id, name FROM datasets WHERE project_id = ? AND archived_at IS NULL ORDER BY id",
        (project_id,),
    )
    marked = database.rows(f"SELECT count(DISTINCT i.id) {_FROM_FIGURES}", (project_id,))[0][0]
    total = database.rows(
        "SELECT count(*) FROM images i JOIN datasets d ON d.id = i.dataset_id"
        " WHERE d.project_id = ? AND i.archived_at IS NULL",
        (project_id,),
    )[0][0]
    classes = [{**c, "name": c["title"]} for c in meta["classes"]]  # the SDK reads `name`

    def items(key: str, kinds: Sequence[Mapping[str, Any]], counts: Counts) -> list[dict[str, Any]]:
        return [
            {
                key: kind,
                "total": sum(counts.get(kind["id"], {}).values()),
                "datasets": [
                    {**dict(row), "count": counts.get(kind["id"], {}).get(row["id"], 0)}
                    for row in datasets
                ],
            }
            for kind in kinds
        ]

    objects = items("objectClass", classes, counts["objects_of_class"])
    return {
        "images": {
            "total": {
                "imagesInDataset": total,
                "imagesMarked": marked,
                "imagesNotMarked": total - marked,
            },
            "objectClasses": items("objectClass", classes, counts["images_of_class"]),
            "datasets": [dict(row) for row in datasets],
        },
        "objects": {"total": sum(each["total"] for each in objects), "items": objects},
        "imageTags": {"items": items("tagMeta", meta["tags"], counts["image_tags"])},
        "objectTags": {"items": items("tagMeta", meta["tags"], counts["object_tags"])},
    }


def project_extent(database: Database, project_id: int) -> tuple[int, int, float]:
    """Return the longest image side in pixels, and the most and the mean objects per image.

    All are 0 without any.
    """
    side, images = database.rows(
        """SELECT max(max(i.width, i.height)), count(*)
        FROM images i JOIN datasets d ON d.id = i.dataset_id
        WHERE d.project_id = ? AND i.archived_at IS NULL""",
        (project_id,),
    )[0]
    most, objects = database.rows(
        f"SELECT max(n), sum(n) FROM (SELECT count(*) AS n {_FROM_FIGURES} GROUP BY f.image_id)",
        (project_id,),
    )[0]
    return int(side or 0), int(most or 0), (objects or 0) / max(images, 1)


def _count(database: Database, sql: str, project_id: int) -> Counts:
    counts: Counts = defaultdict(dict)
    for key, dataset_id, count in database.rows(f"{sql} GROUP BY 1, 2", (project_id,)):
        counts[key][dataset_id] = count
    return counts
