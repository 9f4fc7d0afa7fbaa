"""rrsis.train with FSDP2 over gloo, which accelerate knows on accelerators alone: on CPUs it trains with DDP instead.

torch's `fully_shard` runs on CPUs as well. The one thing put right here is the name that accelerate gives to CPU
processes with an FSDP plugin; all that follows is accelerate's own code, transformers' and ours.
"""

import os
import signal
import sys

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

import rrsis._torchvision  # noqa: F401 (first, as tests/conftest.py does)
from rrsis.train import main
from rrsis.trainer import ReferringTrainer

set_up = AcceleratorState.__init__


def set_up_sharded(self, *args, fsdp_plugin=None, **kwargs):
    set_up(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    # Every further AcceleratorState() is the same state, and is named anew.
    plugin = fsdp_plugin or getattr(self, "fsdp_plugin", None)
    if self.distributed_type == DistributedType.MULTI_CPU and plugin is not None:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugin


AcceleratorState.__init__ = set_up_sharded


def training_step_or_death(self, *args, step=ReferringTrainer.training_step, **kwargs):
    """The step of `RRSIS_TEST_KILL_AT` is one that the second process does not survive."""
    if self.args.process_index == 1 and str(self.state.global_step) == os.environ.get("RRSIS_TEST_KILL_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args, **kwargs)


ReferringTrainer.training_step = training_step_or_death

if __name__ == "__main__":
    main(sys.argv[1:])
