import pytest

from rtdetrv2.training.timing import Speed, epoch_seconds, epochs_within


def test_epoch_is_its_steps_and_its_evaluation():
    # 10 steps of 3 s, and 40 images of 0.25 s.
    assert epoch_seconds(steps=10, step_s=3.0, num_val_images=40, val_image_s=0.25) == 40.0


@pytest.mark.parametrize(
    ("workers", "cores", "is_gpu", "expected"),
    [
        (0, 8, True, 1.4),  # between the steps
        (2, 8, True, 0.8),  # loading takes 0.6 / 2: hidden by the computation
        (0, 8, False, 1.4),
        (4, 2, False, 1.1),  # both on two cores: 0.8 + 0.6 / 2
    ],
)
def test_workers_load_while_a_gpu_computes(workers, cores, is_gpu, expected):
    speed = Speed(compute_s=0.8, load_s=0.6, val_image_s=0.1)
    found = speed.step_s(num_workers=workers, num_cores=cores, is_gpu=is_gpu)
    assert found == pytest.approx(expected)


def test_loading_limits_a_fast_gpu():
    speed = Speed(compute_s=0.1, load_s=2.0, val_image_s=0.1)
    assert speed.step_s(num_workers=4, num_cores=16, is_gpu=True) == 0.5
    assert speed.step_s(num_workers=8, num_cores=2, is_gpu=True) == 1.0  # two cores only


def test_epochs_of_a_time_budget():
    assert epochs_within(480, 100) == 4
    assert epochs_within(480, 1000) == 1
