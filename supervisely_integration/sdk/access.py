"""The access policy of the routes that the SDK adds to an app."""

from fastapi import FastAPI
from supervisely.app.fastapi import subapp
from supervisely.app.widgets_context import JinjaWidgets

from ..access.guard import guard_server
from ..access.policy import app_policy


def use_paths_without_prefix() -> None:
    """Leave the prefix in SUPERVISELY_SERVER_PATH_PREFIX to the access guard.

    `PrefixRouter` adds it to some routes only: static files and WebSockets of the page have none.
    """
    subapp.SUPERVISELY_SERVER_PATH_PREFIX = ""


def protect_app(server: FastAPI) -> None:
    """Apply the access policy to an app.

    `create` and `_init` (supervisely/app/fastapi/subapp.py) add routes that any web page can call:
    they return the API token, start a debugger, end the app, and serve the SDK's source code.
    """
    guard_server(server, app_policy(lambda name: name in JinjaWidgets().context))
