"""Models from wheels: taken out by the real pip without a network, converted, accepted."""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GemmaTokenizerFast, PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.core.errors import InputError
from circuitdrift.core.tokens import load_tokenizer
from circuitdrift.importing.gemma_tokenizer import TokenType, build_gemma_tokenizer, ranked_merges
from circuitdrift.importing.gguf import (
    PLAIN_ENGLISH,
    TINY,
    WHEEL_MODELS,
    Acceptance,
    WheelMember,
    WheelModel,
    accept,
    convert,
    mean_loss,
    obtain_gguf,
)
from circuitdrift.importing.tiny import build_tiny
from circuitdrift.models.loading import load_model
from circuitdrift.params import CATALOGUE

SENTENCE = "the sun is warm"
FIRST = WheelMember("pieces-part1", "1.0.0", "pieces_part1/data/x.gguf.part00")
SECOND = WheelMember("pieces-part2", "1.0.0", "pieces_part2/data/x.gguf.part01")
PIECES = WheelModel(
    name="pieces",
    parts=(FIRST, SECOND),
    sha256=hashlib.sha256(b"one, two").hexdigest(),
    size=8,
    licence="none",
    tokenizer="gemma",
    acceptance=Acceptance("", (), 0.0),
)


def write_wheel(directory: Path, part: WheelMember, files: Mapping[str, bytes]) -> Path:
    """A wheel of ``part``'s package and version that holds ``files``."""
    name = f"{part.package.replace('-', '_')}-{part.version}"
    info = {
        "METADATA": f"Metadata-Version: 2.1\nName: {part.package}\nVersion: {part.version}\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    path = directory / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, content in files.items():
            wheel.writestr(member, content)
        for member, text in info.items():
            wheel.writestr(f"{name}.dist-info/{member}", text)
    return path


def write_gemma_gguf(
    path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write a Gemma 3 as llama.cpp's converter does: norm weights are stored plus one."""
    config = model.config
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = dict.fromkeys(tokenizer.all_special_tokens, TokenType.CONTROL)
    kinds = [
        special.get(t, TokenType.BYTE if t.startswith("<0x") else TokenType.NORMAL) for t in tokens
    ]
    writer = gguf.GGUFWriter(path, "gemma3")
    for field, value in {
        "name": "tiny",
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "head_count": config.num_attention_heads,
        "head_count_kv": config.num_key_value_heads,
        "key_length": config.head_dim,
        "value_length": config.head_dim,
        "layer_norm_rms_eps": config.rms_norm_eps,
        "rope_freq_base": config.rope_theta,
        "sliding_window": config.sliding_window,
        "tokenizer_model": "llama",
        "token_list": tokens,
        "token_scores": [-float(index) for index in range(len(tokens))],
        "token_types": kinds,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "unk_token_id": tokenizer.unk_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }.items():
        getattr(writer, f"add_{field}")(value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight":  # tied to the embeddings, as in the real file
            stored = weight + 1 if name.endswith("norm.weight") else weight
            writer.add_tensor(names.get_name(name, (".weight",)), stored.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def let_pip_see_only(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place that pip sees."""
    directory = tmp_path / "index"
    directory.mkdir()
    let_pip_see_only(directory, monkeypatch)
    return directory


def refusal(tmp_path: Path) -> str:
    """Why the two pieces cannot be had."""
    with pytest.raises(InputError) as error:
        obtain_gguf(PIECES, tmp_path / "x.gguf")
    return str(error.value)


def test_params_may_name_exactly_the_models_of_the_catalogue() -> None:
    assert sorted(CATALOGUE) == sorted([*WHEEL_MODELS, TINY])


@pytest.mark.parametrize("model", WHEEL_MODELS.values(), ids=lambda model: model.name)
def test_each_piece_is_pinned_and_the_whole_too(model: WheelModel) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", model.sha256)
    assert all(re.fullmatch(r"[a-z0-9-]+==\d+(\.\d+)+", part.requirement) for part in model.parts)
    assert [part.member for part in model.parts] == sorted({part.member for part in model.parts})


def test_pieces_are_joined_in_order_and_nothing_else_is_taken_out(
    index: Path, tmp_path: Path
) -> None:
    write_wheel(index, FIRST, {FIRST.member: b"one, ", "../../climbed": b"out", "/climbed": b"out"})
    write_wheel(index, SECOND, {SECOND.member: b"two", "pieces_part2/__init__.py": b"1/0"})
    target = tmp_path / "x.gguf"
    obtain_gguf(PIECES, target)
    assert target.read_bytes() == b"one, two"
    assert not list(tmp_path.rglob("climbed"))


def test_a_file_of_another_hash_is_refused(index: Path, tmp_path: Path) -> None:
    write_wheel(index, FIRST, {FIRST.member: b"One, "})
    write_wheel(index, SECOND, {SECOND.member: b"two"})
    message = refusal(tmp_path)
    assert hashlib.sha256(b"One, two").hexdigest() in message
    assert PIECES.sha256 in message


def test_a_missing_wheel_is_named_in_pips_words(index: Path, tmp_path: Path) -> None:
    write_wheel(index, replace(FIRST, version="1.0.1"), {FIRST.member: b"one, "})
    assert "No matching distribution found for pieces-part1==1.0.0" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("written", "found", "reason"),
    [(b"one, ", b"onE, ", "Bad CRC-32"), (b"pieces_part1/data/x", b"pieces_part2/data/x", "part1")],
    ids=["damaged", "without its piece"],
)
def test_a_wheel_that_is_not_whole_is_refused(
    index: Path, tmp_path: Path, written: bytes, found: bytes, reason: str
) -> None:
    wheel = write_wheel(index, FIRST, {FIRST.member: b"one, "})
    wheel.write_bytes(wheel.read_bytes().replace(written, found))
    assert reason in refusal(tmp_path)


def test_code_of_a_source_distribution_is_never_run(index: Path, tmp_path: Path) -> None:
    witness = index / "ran"
    code = f"open({str(witness)!r}, 'w')".encode()
    with tarfile.open(index / "pieces-part1-1.0.0.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("pieces-part1-1.0.0/setup.py")
        entry.size = len(code)
        archive.addfile(entry, io.BytesIO(code))
    assert "No matching distribution" in refusal(tmp_path)
    assert not witness.exists()


def test_a_model_written_as_gguf_comes_back_with_transformers_own_bits(tmp_path: Path) -> None:
    model, tokenizer = build_tiny()
    write_gemma_gguf(tmp_path / "model.gguf", model, tokenizer)
    again, rebuilt = convert(tmp_path / "model.gguf", "gemma")
    theirs = type(again).from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    written, expected, read = (m.state_dict() for m in (model, theirs, again))
    assert read.keys() == written.keys()
    for name, weight in read.items():
        assert torch.equal(weight, expected[name])
        torch.testing.assert_close(weight, written[name], rtol=0, atol=1e-7, msg=name)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert again.config.to_diff_dict() == theirs.config.to_diff_dict()
    text = "Once the word that moves upward is happy.\n\n naïve"
    assert rebuilt.encode(text) == tokenizer.encode(text)
    _, converted = convert(tmp_path / "model.gguf", "converted")
    for role in ("bos_token", "eos_token", "pad_token", "unk_token"):
        assert getattr(rebuilt, role) == getattr(tokenizer, role) == getattr(converted, role)
    assert len(converted) == len(tokenizer)


def test_a_model_is_accepted_only_with_its_ids_and_its_loss(
    tiny_model: PreTrainedModel, tiny_tokenizer: Tokenizer
) -> None:
    ids = tuple(tiny_tokenizer.encode(SENTENCE).ids)
    loss = mean_loss(tiny_model, tiny_tokenizer, PLAIN_ENGLISH)
    assert accept(tiny_model, tiny_tokenizer, Acceptance(SENTENCE, ids, loss)) == loss
    with pytest.raises(RuntimeError, match="tokenizer is wrong"):
        accept(tiny_model, tiny_tokenizer, Acceptance(SENTENCE, ids[1:], math.inf))
    with pytest.raises(RuntimeError, match="model is wrong"):
        accept(tiny_model, tiny_tokenizer, Acceptance(SENTENCE, ids, 0.99 * loss))
    with torch.no_grad():
        tiny_model.model.layers[0].mlp.down_proj.weight[0, 0] = math.nan
    with pytest.raises(RuntimeError, match="nan nats"):
        accept(tiny_model, tiny_tokenizer, Acceptance(SENTENCE, ids, math.inf))


def test_mean_loss_is_the_mean_of_minus_log_probability(
    tiny_model: PreTrainedModel, tiny_tokenizer: Tokenizer
) -> None:
    ids = tiny_tokenizer.encode(SENTENCE).ids
    with torch.no_grad():
        log_p = tiny_model(torch.tensor([ids])).logits[0].log_softmax(-1)
    by_hand = -sum(float(log_p[at, ids[at + 1]]) for at in range(len(ids) - 1)) / (len(ids) - 1)
    assert mean_loss(tiny_model, tiny_tokenizer, SENTENCE) == pytest.approx(by_hand, rel=1e-5)


CONTROL = ("<pad>", "<eos>", "<bos>", "<unk>")
USER_DEFINED = ("\n", "\n\n", "  ")
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
NORMAL = {
    **{"▁": -9.0, "a": -9.0, "b": -9.0, "c": -9.0},
    **{"ab": -3.0, "bc": -1.0, "abc": -2.0, "▁a": -5.0, "▁ab": -4.0},
}


@pytest.fixture(scope="module")
def tokenizer() -> GemmaTokenizerFast:
    """On a vocabulary small enough to merge by hand."""
    types = (
        *[TokenType.CONTROL] * len(CONTROL),
        *[TokenType.USER_DEFINED] * len(USER_DEFINED),
        *[TokenType.BYTE] * len(BYTES),
    )
    return build_gemma_tokenizer(
        (*CONTROL, *USER_DEFINED, *BYTES, *NORMAL),
        (*[0.0] * len(types), *NORMAL.values()),
        (*types, *[TokenType.NORMAL] * len(NORMAL)),
    )


def test_merges_are_all_splits_into_two_tokens_best_token_first() -> None:
    assert ranked_merges(NORMAL) == [
        ("b", "c"),  # -1
        *(("a", "bc"), ("ab", "c")),  # -2, abc has two splits
        ("a", "b"),  # -3
        *(("▁", "ab"), ("▁a", "b")),  # -4
        ("▁", "a"),  # -5
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc", ["abc"]),  # b+c (-1), then a+bc (-2)
        ("ab", ["ab"]),
        ("bca", ["bc", "a"]),
        (" ab", ["▁ab"]),  # a+b (-3) before ▁+a (-5), then ▁+ab (-4)
        ("cab ab", ["c", "ab", "▁ab"]),
        (" abc", ["▁", "abc"]),  # bc and abc come first, and no token is ▁abc
        ("a  b", ["a", "  ", "b"]),  # user-defined tokens are cut out first
        ("a\n\n\na", ["a", "\n\n", "\n", "a"]),  # the longest of them first
        ("aéb", ["a", "<0xC3>", "<0xA9>", "b"]),  # what no token covers becomes bytes
        ("a<eos>b", ["a", "<eos>", "b"]),
        ("", []),
    ],
)
def test_pieces_are_those_of_merging_by_hand_after_one_bos(
    tokenizer: GemmaTokenizerFast, text: str, expected: list[str]
) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.convert_ids_to_tokens(ids) == ["<bos>", *expected]
    assert tokenizer.decode(ids) == f"<bos>{text}"


def test_saved_and_loaded_by_transformers_it_is_the_same(
    tokenizer: GemmaTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = " abc cab\n\n\n  éa"
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.all_special_tokens == tokenizer.all_special_tokens


@pytest.mark.slow
def test_the_real_gemma_reads_as_sentencepiece_does_and_speaks_english(gemma_base: Path) -> None:
    model, tokenizer = load_model(gemma_base), load_tokenizer(gemma_base)
    text = "Once upon a time, there was  a girl.\n\n\nShe ate crème brûlée \U000123ab in 1999."
    # from the sentencepiece library, given the same vocabulary as a BPE model with byte fallback
    expected = (
        *(14946, 3324, 496, 990, 236764, 993, 691, 138, 236746, 3953, 236761, 109, 5778, 29797),
        *(100479, 125501, 155666, 236743, 478, 384, 380, 409, 528, 236743, 236770, 236819),
        *(236819, 236819, 236761),
    )
    assert tuple(tokenizer.encode(text, add_special_tokens=False).ids) == expected
    assert mean_loss(model, tokenizer, PLAIN_ENGLISH) == pytest.approx(2.15, abs=0.01)
    with torch.no_grad():
        prompt = torch.tensor([tokenizer.encode("The opposite of hot is").ids])
        probabilities = model(prompt).logits[0, -1].softmax(-1)
    assert tokenizer.decode([int(probabilities.argmax())]) == " cold"
    assert float(probabilities.max()) == pytest.approx(0.59, abs=0.01)
