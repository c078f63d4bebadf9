"""Results of runs that never happened."""

from benchmarks.accuracy.datasets import DataSet
from benchmarks.accuracy.results import Point, Result


def point(minutes, ap, ap50=0.0, epoch=1, **classes):
    return Point(minutes=minutes, epoch=epoch, AP=ap, AP50=ap50, per_class=classes)


def result(
    dataset="bccd", recipe="no-paste", seed=0, *, ap=0.5, minutes=4.0, kind="ours", curve=None
):
    return Result(
        dataset=dataset,
        recipe=recipe,
        seed=seed,
        kind=kind,
        settings={"model": "S", "size": 320, "epochs": 10, "batch": 4},
        run={"precision": "float32"},
        command=["rtdetrv2", "train"],
        machine={
            **{"device": "AMD EPYC", "cores": "2", "threads": "2", "torch": "2.10.0"},
            **{"commit": "abc1234", "date": "2026-11-29"},
        },
        steps=510,
        curve=curve or [point(minutes / 2, ap / 2), point(minutes, ap, 0.8, epoch=2)],
        best={"AP": ap, "AP50": 0.8},
        other_cores=0.1,
    )


def dataset(name, folder, **values):
    return DataSet(name=name, folder=folder, **{"size": 64, "epochs": 2, "minutes": 6.0, **values})
