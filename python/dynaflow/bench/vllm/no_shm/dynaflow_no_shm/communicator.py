"""A communicator whose ranks never agree to share memory."""

from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator


class NoShmCommunicator(CpuCommunicator):
    """Reduces over the process group, as between machines."""

    def _all_group_ranks_share_shm_group_name(self) -> bool:
        return False
