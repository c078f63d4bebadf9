"""The errors that a user can meet. Each message says what, where, which value and the remedy."""


class RTDETRError(Exception):
    """Anything that went wrong and that the user can do something about."""


class ConfigError(RTDETRError, ValueError):
    """A setting that is unknown, of the wrong type, or at odds with another one."""


class DatasetError(RTDETRError):
    """Images or annotations that cannot be used."""


class CheckpointError(RTDETRError):
    """A file of weights that is missing, damaged, or of another model."""


class ExportError(RTDETRError):
    """An export that failed, or whose results differ from those of the model."""


class TrainingDiverged(RTDETRError, ArithmeticError):  # noqa: N818 (what happened, not an error)
    """The network's outputs or losses stopped being finite numbers."""


class OutOfMemory(RTDETRError):  # noqa: N818 (what happened, not an error)
    """Not even the smallest part of a batch fits into the memory of the device."""


class RankError(RTDETRError):
    """Another rank failed, or is gone."""
