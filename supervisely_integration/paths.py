"""Paths of the apps' files, independent of the current directory."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
CONFIGS = ROOT / "rtdetrv2_pytorch" / "configs" / "rtdetrv2"

MODELS = PACKAGE / "models_v2.json"
DEMO = PACKAGE / "demo"

TRAIN = PACKAGE / "train"
HYPERPARAMETERS = TRAIN / "hyperparameters.yaml"
TRAIN_OPTIONS = TRAIN / "app_options.yaml"
TRAIN_MANIFEST = TRAIN / "config.json"
ROOT_MANIFEST = ROOT / "config.json"  # the same content, where the ecosystem expects it

SERVE = PACKAGE / "serve"
INFERENCE_SETTINGS = SERVE / "inference_settings.yaml"
SERVE_OPTIONS = SERVE / "app_options.yaml"
SERVE_MANIFEST = SERVE / "config.json"
