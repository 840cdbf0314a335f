"""The CPU platform with the communicator of noshm_communicator.py."""

from vllm.platforms.cpu import CpuPlatform


class NoShmPlatform(CpuPlatform):
    @classmethod
    def get_device_communicator_cls(cls) -> str:
        return "noshm_communicator.NoShmCommunicator"
