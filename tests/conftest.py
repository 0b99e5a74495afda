"""The models that tests share: a random one of two layers, and the real one where it is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from xdist.scheduler import LoadFileScheduling

from circuitdrift import paths
from circuitdrift.artifacts import read_json
from circuitdrift.config.params import Params, load_params
from circuitdrift.models.loading import load_model, load_tokenizer
from circuitdrift.models.tiny import write_tiny
from circuitdrift.paths import BASE_MODEL
from circuitdrift.stages import make_dataset
from linearised import VOCABULARY
from tiny_study import first_runs

ROOT = Path(__file__).resolve().parents[1]
__all__ = ["first_runs"]  # pytest finds a fixture here by its name
LONGEST = ("test_sweep_pipeline", "test_faults")
OF_THE_FIRST_RUNS = ("test_faults", "test_pipeline", "test_remotes", "test_verify_study")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, for a worker that ends with one leaves the other idle."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


class ByStudy(LoadFileScheduling):
    """Shares tests out to workers file by file; those of the same first runs stay together.

    Not by pytest-xdist's groups: with pytest 9.2 these come to nothing, without a word.
    """

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "first_runs" if Path(file).stem in OF_THE_FIRST_RUNS else file


@pytest.hookimpl(optionalhook=True)  # single files are also run without workers
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByStudy:
    return ByStudy(config, log)


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
def gemma_base() -> Path:
    """models/base of this repository, where it holds the real Gemma 3 270M."""
    source = ROOT / BASE_MODEL / "source.json"
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


@pytest.fixture
def small_study(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The shipped study with 12 examples and one thread on the tiny base, its data set made and the
    working directory in it."""
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "data" / "constraints.yaml", tmp_path / "data")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(tiny_base, tmp_path / paths.BASE_MODEL)
    monkeypatch.chdir(tmp_path)
    params = load_params(paths.PARAMS)
    params = params.model_copy(
        update={
            "compute": params.compute.model_copy(update={"threads": 1}),
            "dataset": params.dataset.model_copy(update={"n_examples": 12}),
        }
    )
    make_dataset.run(params)
    return params
