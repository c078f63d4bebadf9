"""Teams, workspaces, tasks, apps and the instance itself."""

from collections.abc import Callable
from typing import Any

from ..ecosystem import app_record, apps, find_module, search_modules, whole_list
from ..storage.listing import Listing
from ..store import Store
from .fields import Fields

# The newest version that this SDK asks for (`versions.json`); it warns about older ones.
INSTANCE_VERSION = "6.18.3"
SUCCESS = {"success": True}
_USER = {
    "id": 1,
    "login": "local",
    "name": "Local user",
    "email": None,
    "role": "admin",
    "roleId": 1,
    "logins": 1,
    "disabled": False,
    "lastLogin": None,
    "createdAt": None,
    "updatedAt": None,
}


def _add_workspace(store: Store, f: Fields) -> Any:
    id_ = store.workspaces.create(
        f.integer("teamId"), f.text("name"), description=f.get("description") or ""
    )
    return store.workspaces.info(id_)


def _set_hidden(store: Store, f: Fields) -> Any:
    store.workspaces.set_hidden(f.integer("id"), bool(f.get("hidden")))
    return SUCCESS


def _set_status(store: Store, f: Fields) -> Any:
    store.tasks.set_status(f.integer("id"), f.text("status"))
    return SUCCESS


def _update_meta(store: Store, f: Fields) -> Any:
    store.tasks.update_meta(f.integer("id"), {k: v for k, v in f.items() if k != "id"})
    return SUCCESS


def _patch_content(store: Store, f: Fields) -> Any:
    payload = f.get("payload") or {}
    store.tasks.patch_content(f.integer("taskId"), payload.get("data") or [], payload.get("state"))
    return SUCCESS


def _set_fields(store: Store, f: Fields) -> Any:
    store.tasks.set_fields(f.integer("taskId"), f.list_of("fields"))
    return SUCCESS


def _module(store: Store, f: Fields) -> Any:
    return find_module("slug", f["slug"]) if f.get("slug") else find_module("id", f.integer("id"))


METHODS: dict[str, Callable[[Store, Fields], Any]] = {
    "instance.version": lambda store, f: {"version": INSTANCE_VERSION},
    "users.me": lambda store, f: _USER,
    "teams.list": lambda store, f: store.teams.page(Listing.from_request(f)),
    "teams.info": lambda store, f: store.teams.info(f.integer("id")),
    "workspaces.list": lambda store, f: store.workspaces.page(
        Listing.from_request(f), teamId=f.integer("teamId")
    ),
    "workspaces.info": lambda store, f: store.workspaces.info(f.integer("id")),
    "workspaces.add": _add_workspace,
    "workspaces.visibility.set": _set_hidden,
    "tasks.info": lambda store, f: store.tasks.info(f.integer("id")),
    "tasks.list": lambda store, f: store.tasks.page(
        Listing.from_request(f), workspaceId=f.optional_integer("workspaceId")
    ),
    "tasks.status.update": _set_status,
    "tasks.meta.update": _update_meta,
    "tasks.output.set": lambda store, f: store.tasks.set_output(
        f.integer("taskId"), f.required("output")
    ),
    "tasks.app-v2.data.set": _patch_content,
    "tasks.data.get": lambda store, f: {
        "result": store.tasks.fields(f.integer("taskId"), [str(n) for n in f.list_of("fields")])
    },
    "tasks.data.set": _set_fields,
    "workflow.node.add-input": lambda store, f: store.tasks.add_node("input", f),
    "workflow.node.add-output": lambda store, f: store.tasks.add_node("output", f),
    "ecosystem.list": lambda store, f: whole_list(search_modules(f)),
    "ecosystem.info": _module,
    "apps.info": lambda store, f: app_record(f.integer("id")),
    "apps.list": lambda store, f: whole_list(apps(f.get("filter") or ())),
}
