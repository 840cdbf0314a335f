"""vLLM's CPU platform without its shared-memory all-reduce, so that there is a link to hide.

A platform plug-in of vLLM's; the folder above this one has to be on Python's path.
"""


def platform() -> str:
    """Entry point of `vllm.platform_plugins`."""
    return "dynaflow_no_shm.platform.NoShmPlatform"
