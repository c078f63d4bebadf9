"""The best epoch of a run."""

from types import SimpleNamespace

from rtdetrv2_pytorch.src.solver.best import BestSoFar


def evaluation(ap):
    return SimpleNamespace(stats={"AP": ap})


def test_only_a_higher_ap_is_better():
    best = BestSoFar()
    assert [best.update(i, evaluation(ap)) for i, ap in enumerate([0.1, 0.3, 0.3, 0.2])] == [
        True,
        True,
        False,
        False,
    ]
    assert (best.ap, best.epoch, best.stale_epochs) == (0.3, 1, 2)


def test_best_epoch_uses_ap_with_the_limit_of_the_data():
    best = BestSoFar()
    for epoch, (ap, coco) in enumerate([(0.3, 0.2), (0.4, 0.1)]):
        best.update(epoch, SimpleNamespace(stats={"AP": ap, "AP_coco": coco}))
    assert (best.ap, best.epoch, best.stale_epochs) == (0.4, 1, 0)


def test_first_epoch_is_best_without_any_boxes():
    best = BestSoFar()
    assert best.update(0, evaluation(-1.0))


def test_epochs_without_improvement_count_those_without_an_evaluation():
    best = BestSoFar()
    for epoch, ap in ((4, 0.5), (9, 0.4), (11, 0.3)):
        best.update(epoch, evaluation(ap))
    assert (best.epoch, best.stale_epochs) == (4, 7)


def test_state_dict_round_trip():
    best = BestSoFar()
    best.update(0, evaluation(0.5))
    best.update(1, evaluation(0.4))
    other = BestSoFar()
    other.load_state_dict(best.state_dict())
    assert not other.update(2, evaluation(0.45))
    assert (other.ap, other.epoch, other.stale_epochs) == (0.5, 0, 2)
