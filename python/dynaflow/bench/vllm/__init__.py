"""Figure `vllm`: a server's steps over a shaped link, with DynaFlow and without."""
