"""What tests share: the tiny model, the study run once on it, and the real model where it is."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path

import pytest
from reproduction import TINY, set_params
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from circuitdrift.check import check_study
from circuitdrift.core import paths
from circuitdrift.core.files import read_json
from circuitdrift.importing.tiny import write_tiny
from circuitdrift.models.loading import load_model, load_tokenizer
from linearised import VOCABULARY
from tiny_study import tiny_clone

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
def tiny_tokenizer(tiny_base: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(tiny_base)


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder after every stage has run in this process. Do not write to it."""
    root = tmp_path_factory.mktemp("study")
    (root / "data").mkdir()
    for name in (paths.PARAMS, paths.CONSTRAINTS, paths.ORIGINAL_STUDY):
        shutil.copy(ROOT / name, root / name)
    set_params(root / paths.PARAMS, TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        params = check_study(root)
        runs = [run.name for run in params.runs.all]
        tested = [run.name for run in params.runs.all if run.condition == "mapped"]
        for stage, names in (
            ("import_base", [None]),
            ("make_dataset", [None]),
            ("finetune", runs),
            ("evaluate", ["base", *runs]),
            ("attribute", ["base", *runs]),
            ("compare", [None]),
            ("intervene", tested),
            ("report", [None]),
        ):
            for name in names:
                import_module(f"circuitdrift.stages.{stage}").run(params, *filter(None, [name]))
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
