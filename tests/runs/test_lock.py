"""Two processes do not write to one place at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clipgan.config import Config
from clipgan.errors import UserError
from clipgan.runs.folder import open_run
from clipgan.runs.lock import locked

CODE = Path(__file__).resolve().parents[2] / "code"
HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom clipgan.runs.lock import locked\n"
    "with locked(Path(sys.argv[1]), 'it'):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path):
    """Another process, which holds the lock ``tmp_path/.birds_run.lock``."""
    environment = os.environ | {"PYTHONPATH": str(CODE)}
    command = [sys.executable, "-c", HOLD, str(tmp_path / ".birds_run.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_of_a_config_is_refused_and_changes_nothing(tmp_path, holder):
    config = Config(OUTPUT_DIR=str(tmp_path))
    in_use = rf"birds_run is in use by another process \(process {holder.pid} on .*CONFIG_NAME"
    with pytest.raises(UserError, match=in_use), open_run(config, None):
        pass
    assert not (tmp_path / "birds_run").exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with open_run(config, None) as folder:  # a process that is dead holds nothing
        assert folder.config.is_file()


def test_a_lock_is_free_after_its_block_however_that_ends(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), locked(tmp_path / "a.lock", "it"):
            raise KeyError
    held, again = locked(tmp_path / "a.lock", "it"), locked(tmp_path / "a.lock", "it")
    with held, pytest.raises(UserError, match="it is in use"), again:
        pass
