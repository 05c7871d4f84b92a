"""llama.cpp's library through its C interface, for figures that its tools do not print: all logits, in floats.

It comes prebuilt in an npm package, which is there in ten seconds where a build takes ten minutes:

    npm pack @node-llama-cpp/linux-x64@3.22.1 && tar -xzf node-llama-cpp-linux-x64-3.22.1.tgz

`Llama(FOLDER, MODEL)` with FOLDER = package/bins/linux-x64. The structs below are those of llama.cpp 0.5.0; their
defaults are checked, so that another layout is refused instead of misread.
"""

import ctypes as c
import pathlib

import numpy as np

PACKAGE = "@node-llama-cpp/linux-x64@3.22.1"
VERSION = "llama.cpp 0.5.0"
F32, F16 = 0, 1


class ModelParams(c.Structure):
    _fields_ = [
        *[(name, c.c_void_p) for name in ("devices", "tensor_buft_overrides")],
        *[(name, c.c_int32) for name in ("n_gpu_layers", "split_mode", "load_mode", "lazy_mode", "main_gpu")],
        *[(name, c.c_void_p) for name in ("tensor_split", "progress", "progress_data", "kv_overrides")],
        *[(name, c.c_bool) for name in ("vocab_only", "check", "extra_bufts", "no_host", "no_alloc", "mtp")],
    ]


class ContextParams(c.Structure):
    _fields_ = [
        *[(name, c.c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq")],
        *[(name, c.c_uint32) for name in ("n_outputs_max", "n_outputs_max_per_seq")],
        *[(name, c.c_int32) for name in ("n_threads", "n_threads_batch", "ctx_type", "rope_scaling_type")],
        *[(name, c.c_int32) for name in ("pooling_type", "attention_type", "flash_attn_type")],
        *[(name, c.c_float) for name in ("rope_freq_base", "rope_freq_scale", "ext", "attn", "fast", "slow")],
        *[("yarn_orig_ctx", c.c_uint32), ("defrag_thold", c.c_float)],
        *[("cb_eval", c.c_void_p), ("cb_eval_user_data", c.c_void_p), ("type_k", c.c_int32), ("type_v", c.c_int32)],
        *[("abort", c.c_void_p), ("abort_data", c.c_void_p)],
        *[(name, c.c_bool) for name in ("embeddings", "offload_kqv", "no_perf", "op_offload", "swa_full")],
        *[("kv_unified", c.c_bool), ("samplers", c.c_void_p), ("n_samplers", c.c_size_t), ("other", c.c_void_p)],
    ]


class QuantizeParams(c.Structure):
    _fields_ = [
        *[(name, c.c_int32) for name in ("threads", "ftype", "output_type", "embedding_type")],
        *[(name, c.c_bool) for name in ("allow_requantize", "quantize_output", "only_copy", "pure", "split", "dry")],
        *[(name, c.c_void_p) for name in ("imatrix", "kv", "tensors", "prune")],
        ("max_buffer", c.c_size_t),
    ]


class Batch(c.Structure):
    _fields_ = [
        ("n_tokens", c.c_int32),
        ("token", c.POINTER(c.c_int32)),
        ("embd", c.c_void_p),
        ("pos", c.POINTER(c.c_int32)),
        ("n_seq_id", c.POINTER(c.c_int32)),
        ("seq_id", c.POINTER(c.POINTER(c.c_int32))),
        ("logits", c.POINTER(c.c_int8)),
    ]


SIGNATURES = {
    "llama_backend_init": (None, []),
    "llama_model_default_params": (ModelParams, []),
    "llama_context_default_params": (ContextParams, []),
    "llama_model_load_from_file": (c.c_void_p, [c.c_char_p, ModelParams]),
    "llama_init_from_model": (c.c_void_p, [c.c_void_p, ContextParams]),
    "llama_model_get_vocab": (c.c_void_p, [c.c_void_p]),
    "llama_vocab_n_tokens": (c.c_int32, [c.c_void_p]),
    "llama_vocab_bos": (c.c_int32, [c.c_void_p]),
    "llama_vocab_get_add_bos": (c.c_bool, [c.c_void_p]),
    "llama_tokenize": (
        c.c_int32,
        [c.c_void_p, c.c_char_p, c.c_int32, c.POINTER(c.c_int32), c.c_int32, c.c_bool, c.c_bool],
    ),
    "llama_model_quantize_default_params": (QuantizeParams, []),
    "llama_model_quantize": (c.c_uint32, [c.c_char_p, c.c_char_p, c.POINTER(QuantizeParams)]),
    "llama_batch_init": (Batch, [c.c_int32, c.c_int32, c.c_int32]),
    "llama_decode": (c.c_int32, [c.c_void_p, Batch]),
    "llama_get_logits": (c.POINTER(c.c_float), [c.c_void_p]),
    "llama_get_memory": (c.c_void_p, [c.c_void_p]),
    "llama_memory_clear": (None, [c.c_void_p, c.c_bool]),
    "llama_log_set": (None, [c.c_void_p, c.c_void_p]),
}
LOG = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)
QUIET = LOG(lambda level, text, data: print(text.decode(), end="") if level == 4 else None)


class Llama:
    """One model with room for `window` tokens. `kv` is the type of keys and values."""

    def __init__(self, folder, model, window, kv=F16, threads=2):
        self.api = load(pathlib.Path(folder))
        model_params = self.api.llama_model_default_params()
        self.model = self.api.llama_model_load_from_file(str(model).encode(), model_params)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {model}")
        params = self.api.llama_context_default_params()
        if (params.n_ctx, params.n_batch, params.n_ubatch, params.type_k) != (512, 2048, 512, F16):
            raise SystemExit(f"the library in {folder} has another layout than {VERSION}; use {PACKAGE}")
        params.n_ctx = params.n_batch = params.n_ubatch = window
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = kv
        # In 32-bit floats nothing but the order of additions differs; flash attention rounds to 16 bits.
        params.flash_attn_type = 0 if kv == F32 else -1
        self.context = self.api.llama_init_from_model(self.model, params)
        self.vocab = self.api.llama_model_get_vocab(self.model)
        self.width = self.api.llama_vocab_n_tokens(self.vocab)
        self.batch = self.api.llama_batch_init(window, 0, 1)

    def bos(self):
        """The token that a text begins with, if this model wants one."""
        return self.api.llama_vocab_bos(self.vocab) if self.api.llama_vocab_get_add_bos(self.vocab) else None

    def tokens(self, text):
        """A text's tokens, BOS included where the model wants it, as llama-perplexity takes them."""
        raw = text.encode()
        room = (c.c_int32 * (len(raw) + 8))()
        count = self.api.llama_tokenize(self.vocab, raw, len(raw), room, len(room), True, False)
        return list(room[:count])

    def logits(self, tokens, skip=0):
        """The logits after every token of a context that begins anew, but the first `skip`: an array of tokens x
        vocabulary."""
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        for at, token in enumerate(tokens):
            self.batch.token[at], self.batch.pos[at], self.batch.logits[at] = token, at, at >= skip
            self.batch.n_seq_id[at], self.batch.seq_id[at][0] = 1, 0
        self.batch.n_tokens = len(tokens)
        if self.api.llama_decode(self.context, self.batch):
            raise SystemExit("llama_decode failed")
        found = np.ctypeslib.as_array(self.api.llama_get_logits(self.context), (len(tokens) - skip, self.width))
        return found.astype(np.float32)


def quantize(folder, model, target, ftype):
    """What `llama-quantize --allow-requantize MODEL TARGET TYPE` does; `ftype` is the number of the type."""
    api = load(pathlib.Path(folder))
    params = api.llama_model_quantize_default_params()
    if (params.ftype, params.quantize_output, params.allow_requantize) != (7, True, False):
        raise SystemExit(f"the library in {folder} has another layout than {VERSION}; use {PACKAGE}")
    params.ftype, params.allow_requantize = ftype, True
    if api.llama_model_quantize(str(model).encode(), str(target).encode(), c.byref(params)):
        raise SystemExit(f"llama.cpp cannot requantise {model}")


def load(folder):
    """The library, with the back end for this processor."""
    base = c.CDLL(str(folder / "libggml-base.so"), mode=c.RTLD_GLOBAL)
    ggml = c.CDLL(str(folder / "libggml.v0.5.0.so"), mode=c.RTLD_GLOBAL)
    api = c.CDLL(str(folder / "libllama.v0.5.0.so"), mode=c.RTLD_GLOBAL)
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(api, name)
        function.restype, function.argtypes = result, arguments
    api.llama_log_set(c.cast(QUIET, c.c_void_p), None)
    ggml.ggml_backend_load_all_from_path.argtypes = [c.c_char_p]
    ggml.ggml_backend_load_all_from_path(str(folder).encode())
    api.llama_backend_init()
    api.kept = (base, ggml)
    return api
