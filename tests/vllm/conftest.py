"""A small model for vLLM. Where that is not installed, these tests are not collected."""

import importlib.util

import pytest

collect_ignore_glob = [] if importlib.util.find_spec("vllm") else ["test_*.py"]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A Llama with random weights and a word for each token, as a folder."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    from dynaflow.bench.workload import LlamaShape, build_model

    shape = LlamaShape(256, 704, layers=3, heads=4, kv_heads=2, vocabulary=2048)
    folder = tmp_path_factory.mktemp("model")
    build_model(shape).save_pretrained(folder)
    words = Tokenizer(WordLevel({f"t{token}": token for token in range(2048)}, unk_token="t0"))
    words.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)  # none is special
    return str(folder)
