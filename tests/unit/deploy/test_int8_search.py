"""The search for layers to keep in float32, without a model."""

import pytest

from rtdetrv2_pytorch.src.deploy.int8.search import Deadline, Search, TimeOverError

LAYERS = [f"layer{n}" for n in range(20)]


class Accuracy:
    """Passes if all `needed` layers are in float32."""

    def __init__(self, *needed, trials=None):
        self.needed, self.left, self.tried = {*needed}, trials, []

    def __call__(self, layers):
        if self.left is not None and len(self.tried) >= self.left:
            raise TimeOverError
        self.tried.append([*layers])
        return self.needed <= {*layers}


def search(passes, order=LAYERS):
    return Search(LAYERS, lambda: order, passes)


def test_no_layer_and_no_order_are_needed_if_the_scheme_is_accurate():
    passes = Accuracy()
    assert Search(LAYERS, lambda: pytest.fail("measured"), passes).run() == []
    assert passes.tried == [[]]


def test_most_sensitive_layer_is_found_in_two_trials():
    passes = Accuracy("layer0")
    assert search(passes).run() == ["layer0"]
    assert passes.tried == [[], ["layer0"]]


@pytest.mark.parametrize("needed", [("layer7",), ("layer2", "layer13"), ("layer19",)])
def test_only_necessary_layers_are_found_in_any_order(needed):
    passes = Accuracy(*needed)
    assert {*search(passes).run()} == {*needed}
    assert len(passes.tried) <= 12 * len(needed)
    keys = [frozenset(layers) for layers in passes.tried]
    assert len(keys) == len({*keys})  # none is measured twice


def test_all_layers_are_float32_if_no_other_choice_passes():
    assert {*search(lambda layers: False).run()} == {*LAYERS}


def test_best_result_counts_when_the_time_is_over():
    # 0, 1 and 2 layers fail, 4 pass; then the time is over.
    assert search(Accuracy("layer3", trials=4)).run() == LAYERS[:4]
    assert search(Accuracy("layer3", trials=3)).run() is None


def test_more_doubles_the_layers():
    found = search(Accuracy())
    assert found.more([]) == ["layer0"]
    assert found.more(["layer5"]) == ["layer5", "layer0"]
    assert found.more(["layer0", "layer5"]) == ["layer0", "layer5", "layer1", "layer2"]


def test_deadline(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    deadline = Deadline(2)
    now[0] = 219.0
    deadline.check()
    now[0] = 221.0
    with pytest.raises(TimeOverError):
        deadline.check()
