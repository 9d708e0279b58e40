"""What a step of vLLM's scheduler costs, by itself: run by the Python of vLLM's own environment.

It prints JSON, microseconds for each running request and step, by how many run. As in our line
`scheduling`, requests decode, nothing is computed, and what feeds the scheduler is not counted.
"""

import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ |= {"VLLM_LOGGING_LEVEL": "CRITICAL", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}

import torch
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

BLOCK_TOKENS = 16
PROMPT_TOKENS = 64
CONTEXT_TOKENS = 4_096
WARM_STEPS = 20
MODEL: dict[str, Any] = {
    "architectures": ["OPTForCausalLM"],
    "model_type": "opt",
    "hidden_size": 64,
    "ffn_dim": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 1,
    "vocab_size": 1_000,
    "max_position_embeddings": CONTEXT_TOKENS,
    "word_embed_proj_dim": 64,
}
"""Of no weights: the scheduler asks a model for its lengths only."""


def scheduler_for(running: int, directory: str) -> Scheduler:
    Path(directory, "config.json").write_text(json.dumps(MODEL))
    config = VllmConfig(
        model_config=ModelConfig(
            model=directory,
            skip_tokenizer_init=True,
            dtype="float16",
            max_model_len=CONTEXT_TOKENS,
        ),
        scheduler_config=SchedulerConfig(
            max_num_seqs=running,
            max_num_batched_tokens=running * PROMPT_TOKENS,
            max_model_len=CONTEXT_TOKENS,
            is_encoder_decoder=False,
            async_scheduling=False,
        ),
        cache_config=CacheConfig(block_size=BLOCK_TOKENS, enable_prefix_caching=True),
        device_config=DeviceConfig("cpu"),
    )
    spec = FullAttentionSpec(
        block_size=BLOCK_TOKENS, num_kv_heads=1, head_size=64, dtype=torch.float16
    )
    blocks = running * CONTEXT_TOKENS // BLOCK_TOKENS // 4
    config.cache_config.num_gpu_blocks = blocks
    cache = KVCacheConfig(
        num_blocks=blocks,
        kv_cache_tensors=[],
        kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
    )
    return Scheduler(
        vllm_config=config,
        kv_cache_config=cache,
        structured_output_manager=StructuredOutputManager(config),
        block_size=BLOCK_TOKENS,
    )


def cost_us(running: int, steps: int) -> float:
    """Of one running request in one step."""
    with TemporaryDirectory() as directory:
        scheduler = scheduler_for(running, directory)
    hash_of = get_hash_fn_by_name("sha256")
    init_none_hash(hash_of)
    hasher = get_request_block_hasher(BLOCK_TOKENS, hash_of)
    sampling = SamplingParams(max_tokens=WARM_STEPS + steps + 10, ignore_eos=True)
    for number in range(running):
        prompt = [(number * 31 + place) % 997 for place in range(PROMPT_TOKENS)]
        scheduler.add_request(Request(f"r{number}", prompt, sampling, None, block_hasher=hasher))
    for _ in range(WARM_STEPS):
        _step(scheduler, running)
    spent_s = sum(_step(scheduler, running) for _ in range(steps))
    return spent_s / steps / running * 1e6


def _step(scheduler: Scheduler, running: int) -> float:
    began = time.thread_time()
    scheduled = scheduler.schedule()
    spent_s = time.thread_time() - began
    ids = list(scheduled.num_scheduled_tokens)
    assert len(ids) == running
    places = {id_: place for place, id_ in enumerate(ids)}
    output = ModelRunnerOutput(
        req_ids=ids, req_id_to_index=places, sampled_token_ids=[[5] for _ in ids]
    )
    began = time.thread_time()
    scheduler.update_from_output(scheduled, output)
    return spent_s + time.thread_time() - began


if __name__ == "__main__":
    steps, *numbers = map(int, sys.argv[1:])
    sys.stdout.write(json.dumps({running: cost_us(running, steps) for running in numbers}) + "\n")
