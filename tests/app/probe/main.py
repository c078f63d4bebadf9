"""The training app, which first writes down the attributes that training code uses."""

import json
import os
from pathlib import Path

from supervisely_integration.train import main as app

train = app.train


@train.start
def start_training():
    """Note the attributes, then train."""
    attributes = {
        name: getattr(train, name)
        for name in (
            "work_dir",
            "output_dir",
            "project_id",
            "project_name",
            "project_dir",
            "train_dataset_dir",
            "val_dataset_dir",
            "model_name",
            "model_source",
            "model_files",
            "hyperparameters",
            "classes",
            "device",
        )
    }
    attributes["project_info"] = train.project_info.id
    attributes["project_meta"] = [c.name for c in train.project_meta.obj_classes]
    attributes["sly_project"] = {d.name: len(d) for d in train.sly_project.datasets}
    attributes["model_info"] = train.model_info["Model"]
    attributes["app_state"] = train.get_app_state()
    Path(os.environ["ATTRIBUTES_FILE"]).write_text(json.dumps(attributes))
    return app.start_training()
