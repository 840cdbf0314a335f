"""The CPU platform with a communicator of its own."""

from vllm.platforms.cpu import CpuPlatform


class NoShmPlatform(CpuPlatform):
    """vLLM's own in all but the communicator."""

    @classmethod
    def get_device_communicator_cls(cls) -> str:
        """Where the communicator is."""
        return "dynaflow_no_shm.communicator.NoShmCommunicator"
