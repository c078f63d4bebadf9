"""Many short epochs: neither memory nor open files grow (200 epochs: benchmarks/long_run.py)."""

import pytest

from benchmarks.long_run import run, slope

SETTLED, EPOCHS = 20, 60


def test_the_slope_is_the_growth_per_epoch():
    assert slope([5.0, 5.5, 6.0, 6.5]) == pytest.approx(0.5)
    assert slope([3.0, 3.0, 3.0]) == pytest.approx(0.0)


@pytest.mark.slow
def test_memory_and_open_files_do_not_grow(tmp_path):
    meter = run(tmp_path, EPOCHS)
    assert len(meter.pss_mib) == EPOCHS
    assert meter.pss_mib[0] > 100  # the network with its moments needs that
    assert slope(meter.pss_mib[SETTLED:]) < 0.5, meter.pss_mib
    assert max(meter.files[SETTLED:]) <= meter.files[SETTLED]
