#!/usr/bin/env python3
"""Turns a GGUF file of the llama architecture with a BPE tokenizer into a model folder that vLLM reads.

    gguf2hf.py MODEL.gguf FOLDER

The weights are dequantised to 32-bit floats. The config comes last, so that its presence means that all is there.
"""

import json
import pathlib
import sys

import numpy
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file

LAYER_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
CONTROL, USER_DEFINED = 3, 4


def main():
    source, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(source)
    architecture = value(reader, "general.architecture")
    if architecture != "llama":
        raise SystemExit(f"{source} is of the architecture {architecture}; only llama can be converted")
    config = model_config(reader)
    write(folder / "tokenizer.json", tokenizer(reader))
    write(folder / "tokenizer_config.json", tokenizer_config(reader))
    save_file(weights(reader, config), folder / "model.safetensors", metadata={"format": "pt"})
    ends = {name: config[name] for name in ("bos_token_id", "eos_token_id")}
    write(folder / "generation_config.json", ends)
    write(folder / "config.json", config)


def value(reader, key):
    return reader.fields[key].contents()


def write(path, content):
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1))


def model_config(reader):
    llama = lambda key: value(reader, f"llama.{key}")
    hidden, heads = llama("embedding_length"), llama("attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": llama("feed_forward_length"),
        "num_hidden_layers": llama("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": llama("attention.head_count_kv"),
        "head_dim": hidden // heads,
        "rope_theta": llama("rope.freq_base"),
        "rms_norm_eps": llama("attention.layer_norm_rms_epsilon"),
        "vocab_size": llama("vocab_size"),
        "max_position_embeddings": llama("context_length"),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in reader.tensors),
        "bos_token_id": value(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": value(reader, "tokenizer.ggml.eos_token_id"),
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def weights(reader, config):
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    found = {}
    for tensor in reader.tensors:
        numbers = dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        name = WHOLE.get(tensor.name)
        if name is None:
            _, layer, part, _ = tensor.name.split(".")
            name = f"model.layers.{layer}.{LAYER_PARTS[part]}.weight"
            numbers = halves_apart(numbers, heads[part]) if part in heads else numbers
        found[name] = numpy.ascontiguousarray(numbers)
    return found


def halves_apart(numbers, heads):
    """GGUF keeps the two numbers that a rotation turns side by side; here they are half a head apart."""
    pairs = numbers.reshape(heads, numbers.shape[0] // heads // 2, 2, *numbers.shape[1:])
    return pairs.swapaxes(1, 2).reshape(numbers.shape)


def listed(reader, key, read):
    field = reader.fields[key]
    return [read(field.parts[index]) for index in field.data]


def tokenizer(reader):
    text = lambda part: bytes(part).decode()
    tokens = listed(reader, "tokenizer.ggml.tokens", text)
    kinds = listed(reader, "tokenizer.ggml.token_type", lambda part: int(part[0]))
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": token, "content": content, **plain, "special": kind == CONTROL}
        for token, (content, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]
    digits = {"type": "Digits", "individual_digits": True}
    bytes_out = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [digits, {**bytes_out, "add_prefix_space": False}],
        },
        "post_processor": None,
        "decoder": bytes_out,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {content: token for token, content in enumerate(tokens)},
            "merges": listed(reader, "tokenizer.ggml.merges", text),
        },
    }


def tokenizer_config(reader):
    tokens = listed(reader, "tokenizer.ggml.tokens", lambda part: bytes(part).decode())
    token = lambda name: tokens[value(reader, f"tokenizer.ggml.{name}_token_id")]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": token("bos"),
        "eos_token": token("eos"),
        "pad_token": token("eos"),
        "model_max_length": value(reader, "llama.context_length"),
        "clean_up_tokenization_spaces": False,
        "chat_template": value(reader, "tokenizer.chat_template"),
    }


if __name__ == "__main__":
    main()
