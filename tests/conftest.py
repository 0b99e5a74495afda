"""What tests share: the tiny model, the study run once on it, and the real model where it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.core import paths
from circuitdrift.core.files import read_json
from circuitdrift.core.tokens import load_tokenizer
from circuitdrift.importing.tiny import write_tiny
from circuitdrift.models.loading import load_model
from linearised import VOCABULARY
from tiny_study import lay_out, run_stages, tiny_clone

ROOT = Path(__file__).resolve().parents[1]
__all__ = ["tiny_clone"]  # pytest finds a fixture here by its name


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory like models/base that holds the tiny model. Do not write to it."""
    directory = tmp_path_factory.mktemp("models") / "base"
    write_tiny(directory)
    return directory


@pytest.fixture
def tiny_model(tiny_base: Path) -> PreTrainedModel:
    """A fresh copy of the tiny model, the test's own to change."""
    return load_model(tiny_base)


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_base: Path) -> Tokenizer:
    return load_tokenizer(tiny_base)


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder after every stage has run in this process. Do not write to it."""
    root = lay_out(tmp_path_factory.mktemp("study"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_stages()
    return root


@pytest.fixture(scope="session")
def gemma_base() -> Path:
    """models/base of this repository, where it holds the real Gemma 3 270M."""
    source = ROOT / paths.BASE_MODEL / "source.json"
    if not source.is_file() or read_json(source).get("model") != "gemma-3-270m":
        pytest.skip("models/base does not hold gemma-3-270m")
    return source.parent


@pytest.fixture(scope="session")
def word_tokenizer() -> PreTrainedTokenizerFast:
    """For the random models of linearised.py, which have no text: a token is its own number."""
    words = Tokenizer(WordLevel({str(token): token for token in range(VOCABULARY)}, unk_token="0"))
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="0", pad_token="1", bos_token="2"
    )
