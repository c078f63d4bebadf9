"""Teams, workspaces, tasks, apps and the instance itself."""

from ..ecosystem import app_record, filter_modules, find_module, whole_list
from ..storage.sql.listing import Listing
from .fields import Methods

# The newest version in the SDK's `versions.json`; the SDK warns about older instances.
INSTANCE_VERSION = "6.18.3"
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


METHODS: Methods = {
    "instance.version": lambda store, f: {"version": INSTANCE_VERSION},
    "users.me": lambda store, f: _USER,
    "teams.list": lambda store, f: store.teams.page(Listing.from_request(f)),
    "teams.info": lambda store, f: store.teams.info(f.integer("id")),
    "workspaces.list": lambda store, f: store.workspaces.page(
        Listing.from_request(f), teamId=f.integer("teamId")
    ),
    "workspaces.info": lambda store, f: store.workspaces.info(f.integer("id")),
    "workspaces.add": lambda store, f: store.workspaces.info(
        store.workspaces.create(f.integer("teamId"), f.text("name"), f.get("description") or "")
    ),
    "workspaces.visibility.set": lambda store, f: store.workspaces.set_hidden(
        f.integer("id"), bool(f.get("hidden"))
    ),
    "tasks.info": lambda store, f: store.tasks.info(f.integer("id")),
    "tasks.list": lambda store, f: store.tasks.page(
        Listing.from_request(f), workspaceId=f.optional_integer("workspaceId")
    ),
    "tasks.status.update": lambda store, f: store.tasks.set_status(
        f.integer("id"), f.text("status")
    ),
    "tasks.meta.update": lambda store, f: store.tasks.update_meta(
        f.integer("id"), {k: v for k, v in f.items() if k != "id"}
    ),
    "tasks.output.set": lambda store, f: store.tasks.set_output(
        f.integer("taskId"), f.required("output")
    ),
    "tasks.app-v2.data.set": lambda store, f: store.tasks.patch_content(
        f.integer("taskId"), f.get("payload") or {}
    ),
    "tasks.data.get": lambda store, f: {
        "result": store.tasks.fields(f.integer("taskId"), [str(n) for n in f.list_of("fields")])
    },
    "tasks.data.set": lambda store, f: store.tasks.set_fields(
        f.integer("taskId"), f.list_of("fields")
    ),
    "workflow.node.add-input": lambda store, f: store.tasks.add_node("input", f),
    "workflow.node.add-output": lambda store, f: store.tasks.add_node("output", f),
    "ecosystem.list": lambda store, f: whole_list(filter_modules(f.get("filter") or ())),
    "ecosystem.info": lambda store, f: (
        find_module("slug", f["slug"]) if f.get("slug") else find_module("id", f.integer("id"))
    ),
    "apps.info": lambda store, f: app_record(f.integer("id")),
}
