"""The serving app: a checkpoint behind the routes of the Supervisely SDK."""
