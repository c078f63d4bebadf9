"""The page of the apps, without an app."""

from tests.sdk import import_sdk

import_sdk()
