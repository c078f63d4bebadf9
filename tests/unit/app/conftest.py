"""Parts of the training app, without a platform."""

from tests.sdk import import_sdk

import_sdk()
