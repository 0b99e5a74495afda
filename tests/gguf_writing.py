"""A Gemma 3 written as GGUF the way llama.cpp's converter does, to be converted back."""

from __future__ import annotations

from pathlib import Path

import gguf
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.models.gemma_tokenizer import TokenType


def write_gemma_gguf(
    path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write float32 weights and the vocabulary; llama.cpp stores norm weights plus one."""
    config = model.config
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_sliding_window(config.sliding_window)
    _add_vocabulary(writer, tokenizer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":  # tied to the embeddings, as in the real file
            continue
        stored = weight + 1 if name.endswith("norm.weight") else weight
        writer.add_tensor(names.get_name(name, (".weight",)), stored.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) for index in range(len(tokens))])
    writer.add_token_types([_type(token, tokenizer) for token in tokens])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)


def _type(token: str, tokenizer: PreTrainedTokenizerFast) -> TokenType:
    if token in tokenizer.all_special_tokens:
        return TokenType.CONTROL
    return TokenType.BYTE if token.startswith("<0x") else TokenType.NORMAL
