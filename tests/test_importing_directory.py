"""Models as people save them: read as they were meant, or refused by name before a weight is read.

The right values are those of the same weights saved as this transformers saves them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers, processors
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from circuitdrift.core.errors import InputError
from circuitdrift.core.tokens import answer_id, encode, load_tokenizer
from circuitdrift.importing.directory import model_files
from circuitdrift.importing.sources import import_model
from circuitdrift.importing.tiny import build_tiny, tiny_tokenizer
from circuitdrift.models.loading import load_model
from circuitdrift.params import Base

TEXT = "the word moves to the sun and is"


def shape(**changes: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        **changes,
    }


def save(
    directory: Path,
    kind: type[PreTrainedModel],
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerFast | None = None,
    **how: Any,
) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind(config).to(how.pop("dtype", torch.float32)).save_pretrained(directory, **how)
    (tokenizer or tiny_tokenizer()).save_pretrained(directory)
    return directory


def edit(path: Path, *without: str, **changes: Any) -> None:
    value = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value[key] for key in value if key not in without}))


@pytest.fixture
def tiny(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "tiny"))


@pytest.fixture
def imported(tmp_path: Path) -> Callable[[Path], Path]:
    def into(directory: Path) -> Path:
        out = tmp_path / "imported" / directory.name
        out.mkdir(parents=True)
        import_model(Base(model="directory", directory=str(directory)), out)
        return out

    return into


@torch.no_grad()
def logits(directory: Path) -> torch.Tensor:
    """After every token of TEXT ``[n_tokens, vocabulary]``."""
    ids = encode(load_tokenizer(directory), TEXT).ids
    found: torch.Tensor = load_model(directory)(torch.tensor([ids])).logits[0]
    return found


def qwen3(directory: Path, **changes: Any) -> Path:
    config = Qwen3Config(**shape(rope_theta=1e6, tie_word_embeddings=True, **changes))
    return save(directory, Qwen3ForCausalLM, config)


LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 16,
}


def as_transformers_5_writes(directory: Path, **rope: Any) -> Path:
    """The same weights beside a config of another version."""
    copy = Path(shutil.copytree(directory, directory.with_name(f"{directory.name}-5")))
    edit(copy / "config.json", "rope_theta", "rope_scaling", "rope_local_base_freq",
         transformers_version="5.2.0", rope_parameters=rope)  # fmt: skip
    return copy


def test_rotations_that_transformers_5_wrote_are_those_of_4(
    tmp_path: Path, imported: Callable[[Path], Path]
) -> None:
    theta = {"rope_theta": 1e6}
    plain = qwen3(tmp_path / "qwen3")
    llama = LlamaConfig(**shape(rope_theta=1e6, rope_scaling=LLAMA_3))
    scaled = save(tmp_path / "llama", LlamaForCausalLM, llama)
    build_tiny()[0].save_pretrained(tmp_path / "gemma")
    tiny_tokenizer().save_pretrained(tmp_path / "gemma")
    theirs = json.loads((tmp_path / "gemma" / "config.json").read_text())
    full = {"rope_theta": theirs["rope_theta"], "rope_type": "default"}
    local = {"rope_theta": theirs["rope_local_base_freq"], "rope_type": "default"}
    for directory, rope in (
        (plain, {**theta, "rope_type": "default"}),
        (scaled, {**theta, **LLAMA_3}),
        (tmp_path / "gemma", {"full_attention": full, "sliding_attention": local}),
    ):
        expected = logits(imported(directory))
        assert torch.equal(
            logits(imported(as_transformers_5_writes(directory, **rope))), expected
        ), directory.name


def test_a_key_that_this_transformers_leaves_unread_is_refused_where_it_may_matter(
    tiny: Path, tmp_path: Path
) -> None:
    edit(tiny / "config.json", use_value_residual=True, embedding_multiplier=12.0, clip_qkv=8.0)
    with pytest.raises(InputError) as refused:
        model_files(tiny, "base.directory")
    assert [problem.where.rpartition(" ")[2] for problem in refused.value.problems] == [
        "use_value_residual",
        "embedding_multiplier",
        "clip_qkv",
    ]
    other = as_transformers_5_writes(qwen3(tmp_path / "partial"), rope_theta=1e6, new_factor=0.5)
    with pytest.raises(InputError, match="rope_parameters"):
        model_files(other, "base.directory")


def test_keys_that_say_nothing_of_the_model_are_not_in_the_way(
    tiny: Path, imported: Callable[[Path], Path]
) -> None:
    """Keys of SmolLM 2's and Gemma 2's own configs, and settings that save_pretrained refuses.

    And one that is no field of the config, but read: 4.50 wrote it in place of layer_types.
    """
    expected = logits(imported(Path(shutil.copytree(tiny, tiny.with_name("plain")))))
    settings = {"do_sample": False, "temperature": 0.9, "top_p": 0.6}
    (tiny / "generation_config.json").write_text(json.dumps(settings))
    edit(tiny / "config.json", "layer_types", sliding_window_pattern=2, sliding_window_size=8,
         is_llama_config=True, rope_interleaved=False, temperature=0.9, hidden_dropout=0.1,
         hidden_act="gelu_pytorch_tanh", cache_implementation="hybrid",
         **{"transformers.js_config": {"kv_cache_dtype": "fp16"}})  # fmt: skip
    assert torch.equal(logits(imported(tiny)), expected)


def save_biased(directory: Path) -> Path:
    return save(directory, LlamaForCausalLM, LlamaConfig(**shape(attention_bias=True)))


def save_qwen2(directory: Path) -> Path:
    sizes = shape()
    del sizes["head_dim"]
    return save(directory, Qwen2ForCausalLM, Qwen2Config(**sizes, tie_word_embeddings=True))


def save_mistral(directory: Path) -> Path:
    return save(directory, MistralForCausalLM, MistralConfig(**shape()))


def save_quantised(directory: Path) -> Path:
    qwen3(directory)
    edit(directory / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    return directory


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (save_qwen2, "architectures.*attribution knows .*Qwen3ForCausalLM.*Qwen2ForCausalLM"),
        (save_mistral, "architectures.*MistralForCausalLM"),
        (save_biased, "attention_bias.*without biases"),
        (save_quantised, "quantization_config.*not quantised"),
    ],
)
def test_what_attribution_cannot_follow_is_refused_by_its_config(
    make: Callable[[Path], Path], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason):
        model_files(make(tmp_path / "model"), "base.directory")


def test_a_merged_model_in_its_adapters_folder_is_the_merged_one(
    tiny: Path, tmp_path: Path, imported: Callable[[Path], Path]
) -> None:
    directory = tmp_path / "merged"
    settings = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    model = get_peft_model(load_model(tiny), settings)
    model.save_pretrained(directory)
    merged = model.merge_and_unload()
    merged.save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    assert (directory / "adapter_config.json").is_file()
    out = imported(directory)
    own, theirs = load_file(out / "model.safetensors"), load_file(directory / "model.safetensors")
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[name], theirs[name]) for name in own)
    assert not torch.equal(logits(out), logits(tiny))
    (directory / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        model_files(directory, "base.directory")


def untied_head(weights: dict[str, torch.Tensor]) -> None:
    weights["lm_head.weight"] = 2 * weights["model.embed_tokens.weight"]


def left_over(weights: dict[str, torch.Tensor]) -> None:
    weights["model.layers.2.mlp.up_proj.weight"] = torch.zeros(48, 32)


def not_a_number(weights: dict[str, torch.Tensor]) -> None:
    weights["model.norm.weight"][3] = torch.nan


def eight_bits(weights: dict[str, torch.Tensor]) -> None:
    weights["model.norm.weight"] = torch.ones(32, dtype=torch.float8_e4m3fn)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (untied_head, r"other than those loaded \(tied by the config\?\): lm_head.weight"),
        (left_over, "of no use in this model: model.layers.2.mlp.up_proj.weight"),
        (not_a_number, "with values that are no numbers: model.norm.weight"),
        (eight_bits, "of torch.float8_e4m3fn, so quantised: model.norm.weight"),
    ],
)
def test_weights_that_are_not_those_of_the_model_are_refused(
    tiny: Path,
    imported: Callable[[Path], Path],
    change: Callable[[dict[str, torch.Tensor]], None],
    reason: str,
) -> None:
    weights = load_file(tiny / "model.safetensors")
    change(weights)
    save_file(weights, tiny / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=reason):
        imported(tiny)


def test_a_tied_head_may_lie_there_too(tiny: Path, imported: Callable[[Path], Path]) -> None:
    weights = load_file(tiny / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tiny / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(logits(imported(tiny)), logits(tiny))


def test_half_precision_in_shards_an_untied_head_and_soft_caps_are_read(
    tmp_path: Path, imported: Callable[[Path], Path]
) -> None:
    llama = LlamaConfig(**shape(tie_word_embeddings=False))
    sharded = {"dtype": torch.bfloat16, "max_shard_size": "20KB"}
    shards = save(tmp_path / "shards", LlamaForCausalLM, llama, **sharded)
    assert (shards / "model.safetensors.index.json").is_file()
    gemma_2 = Gemma2Config(**shape(query_pre_attn_scalar=16, sliding_window=4))
    capped = save(tmp_path / "capped", Gemma2ForCausalLM, gemma_2)
    for directory in (shards, capped):
        torch.testing.assert_close(logits(imported(directory)), logits(directory), rtol=0, atol=0)


def test_a_model_without_a_beginning_token_and_with_spare_embeddings_is_read(
    tmp_path: Path, imported: Callable[[Path], Path]
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_bos_token = False
    tokenizer.update_post_processor()
    config = Qwen3Config(**shape(vocab_size=len(tokenizer) + 15, tie_word_embeddings=True))
    out = imported(save(tmp_path / "bare", Qwen3ForCausalLM, config, tokenizer))
    encoded = encode(load_tokenizer(out), "the sun")
    assert (encoded.n_front, len(encoded.ids)) == (0, len(tokenizer("the sun").input_ids))
    assert logits(out).shape[1] == len(tokenizer) + 15


def test_a_tokenizer_that_adds_an_end_reads_prompts_as_the_same_without(
    tiny: Path, imported: Callable[[Path], Path]
) -> None:
    expected = logits(tiny)
    tokenizer = tiny_tokenizer()
    tokenizer.add_eos_token = True
    tokenizer.update_post_processor()
    tokenizer.save_pretrained(tiny)
    out = imported(tiny)
    assert load_tokenizer(out).encode(TEXT).tokens[-1] == "<eos>"
    assert torch.equal(logits(out), expected)
    assert answer_id(load_tokenizer(out), TEXT, "happy") == tokenizer.vocab["▁happy"]


@pytest.mark.parametrize("named", [None, "LlamaTokenizer"])
def test_a_tokenizer_that_lies_there_whole_is_not_built_otherwise(
    tmp_path: Path, imported: Callable[[Path], Path], named: str | None
) -> None:
    """Without a config transformers takes it for its model's, whose other tokens it then adds."""
    config = LlamaConfig(**shape(vocab_size=len(tiny_tokenizer()) + 15))
    directory = save(tmp_path / "padded", LlamaForCausalLM, config)
    expected = logits(imported(Path(shutil.copytree(directory, tmp_path / "plain"))))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (directory / name).unlink()
    if named:
        settings = {"tokenizer_class": named, "add_prefix_space": False}
        settings |= {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    assert torch.equal(logits(imported(directory)), expected)


def test_a_tokenizer_config_that_adds_tokens_is_refused(
    tmp_path: Path, imported: Callable[[Path], Path]
) -> None:
    config = LlamaConfig(**shape(vocab_size=len(tiny_tokenizer()) + 15))
    directory = save(tmp_path / "padded", LlamaForCausalLM, config)
    edit(directory / "tokenizer_config.json", additional_special_tokens=["<start_of_image>"])
    with pytest.raises(InputError, match=r"1 tokens added or missing.*<start_of_image>"):
        imported(directory)


def test_a_pointer_of_git_lfs_is_called_by_its_name(tiny: Path) -> None:
    (tiny / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="git lfs pull"):
        model_files(tiny, "base.directory")


def test_special_tokens_in_a_list_are_read_as_the_same_tokens(
    tiny: Path, imported: Callable[[Path], Path]
) -> None:
    expected = logits(tiny)
    edit(tiny / "tokenizer_config.json", extra_special_tokens=["<eos>", "<start_of_image>"],
         tokenizer_class="TokenizersBackend")  # fmt: skip
    out = imported(tiny)
    assert torch.equal(logits(out), expected)
    assert load_tokenizer(out).get_vocab() == load_tokenizer(tiny).get_vocab()


def test_a_tokenizer_that_puts_a_space_in_front_has_answers_of_one_token(
    tmp_path: Path, imported: Callable[[Path], Path]
) -> None:
    """As Llama 2's, which reads " happy" alone as two tokens."""
    backend = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    llama = Tokenizer.from_str(json.dumps({**backend, "pre_tokenizer": None}))
    llama.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    llama.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    named = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=llama, **named)
    directory = save(tmp_path / "llama", LlamaForCausalLM, LlamaConfig(**shape()), tokenizer)
    read = load_tokenizer(imported(directory))
    assert len(read.encode(" happy", add_special_tokens=False).ids) == 2
    happy = tiny_tokenizer().vocab["▁happy"]
    assert answer_id(read, "the word blarf means", "happy") == happy
