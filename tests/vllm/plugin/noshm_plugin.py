"""vLLM without its shared-memory all-reduce, so that ranks of one machine have a link to hide."""


def platform() -> str:
    return "noshm_platform.NoShmPlatform"
