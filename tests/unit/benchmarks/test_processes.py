"""Child processes: failures name the end of the log, and an interruption lets them save."""

import sys

import pytest

from benchmarks.accuracy.processes import RunError, run_logged

WAITS_FOR_SIGTERM = """
import signal, sys, time
def stop(*_):
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("started", flush=True)
time.sleep(60)
"""


def test_failed_command_names_the_end_of_its_log(tmp_path):
    log = tmp_path / "folder" / "run.log"
    program = "import sys; print('\\n'.join(map(str, range(100)))); sys.exit(3)"
    with pytest.raises(RunError, match=r"exit code 3; end of .*run\.log:\n75\n76") as caught:
        run_logged([sys.executable, "-c", program], log, on_poll=lambda: None)
    assert str(caught.value).endswith("\n99")


def test_interrupted_command_saves_its_state(tmp_path):
    log = tmp_path / "run.log"

    def interrupt():
        if "started" in log.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_logged([sys.executable, "-c", WAITS_FOR_SIGTERM], log, on_poll=interrupt)
    assert log.read_text().split() == ["started", "saved"]
