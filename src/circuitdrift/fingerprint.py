"""Whether a machine computes the bits of the committed results, told in seconds.

    python -m circuitdrift.fingerprint KERNELS

prints the hashes of a fixed list of computations under these kernels, at two threads, as JSON:
products of the shapes of Gemma 3 270M, sums and functions, a fine-tuning of two steps and the
circuit of one prompt in the tiny model. Under the kernels of reports/reliability/fingerprint.json
they are the committed ones wherever the results can be.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from circuitdrift.check import without_avx2
from circuitdrift.core.files import read_json
from circuitdrift.core.kernels import set_kernels
from circuitdrift.params import Attribution, Compute, Lora, Train

FINGERPRINT = Path("reports/reliability/fingerprint.json")
THREADS = 2
# Rows, inner and columns: prompts into an MLP, its way out, a small one, the unembedding.
PRODUCTS = (
    (9, 640, 2048),
    (144, 640, 2048),
    (100, 2048, 640),
    (72, 256, 9),
    (12, 640, 16384),
)
TRAIN = Train(
    epochs=1,
    batch_size=2,
    learning_rate=1e-3,
    schedule="linear",
    warmup_steps=0,
    weight_decay=0.0,
    max_grad_norm=1.0,
    loss_on="sentence",
    checkpoints=(1.0,),
    lora=Lora(r=4, alpha=8, dropout=0.0, target_modules="all-linear"),
)
ATTRIBUTION = Attribution(
    engine="edges",
    selection="influence",
    near_prompts_per_word=1,
    discovery_prompts_per_word=1,
    control_prompts=2,
    graph_seeds=(),
    graph_prompts_per_word=1,
    graph_control_prompts=0,
    feature_nodes=16,
    candidates_per_place=8,
    batch_size=16,
    max_memory_gb=1.0,
    node_threshold=0.8,
    edge_threshold=0.98,
)


def differing(root: Path) -> list[str] | None:
    """The computations that give other bits here than where a study's results were computed; None
    where the study has no fingerprint. They run in a process of their own, for kernels are chosen
    at import; a processor without these kernels computes none of them.
    """
    if not (root / FINGERPRINT).is_file():
        return None
    committed = read_json(root / FINGERPRINT)
    if without_avx2():
        return list(committed["hashes"])
    here = computed(committed["kernels"])
    return [
        name for name, digest in committed["hashes"].items() if here["hashes"].get(name) != digest
    ]


def computed(kernels: str, *runner: str) -> dict[str, Any]:
    """The fingerprint of this machine, or of one that ``runner`` emulates."""
    command = [*runner, sys.executable, "-m", __name__, kernels]
    source = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    fingerprint: dict[str, Any] = json.loads(done.stdout)
    return fingerprint


def computations(compute: Compute) -> Iterator[tuple[str, bytes]]:
    """Each computation's name and the bytes that it gave. Inputs are drawn as integers and scaled,
    which no kernel touches."""
    import numpy as np
    import torch

    from circuitdrift.models.loading import prepare_torch

    prepare_torch(compute)
    generator = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return generator.integers(-(2**20), 2**20, shape).astype(np.float32) / 2**19

    for n, inner, m in PRODUCTS:
        product = torch.from_numpy(draw(n, inner)) @ torch.from_numpy(draw(inner, m))
        yield f"product {n} x {inner} x {m}", product.numpy().tobytes()
    many = torch.from_numpy(draw(4, 20, 256))
    yield "products in a batch", torch.bmm(many, many.transpose(1, 2)).numpy().tobytes()
    rows = torch.from_numpy(draw(64, 2048))
    for name, values in {
        "softmax": rows.softmax(-1),
        "log-softmax": rows.double().log_softmax(-1),
        "gelu": torch.nn.functional.gelu(rows, approximate="tanh"),
        "root mean square": torch.rsqrt(rows.pow(2).mean(-1)),
        "sum of exp": rows.exp().sum(-1),
        "sum": rows.sum(),
    }.items():
        yield name, values.numpy().tobytes()
    exact = draw(300, 300).astype(np.float64)
    yield "numpy's product", (exact @ exact).tobytes()
    yield "numpy's exp and log", (np.exp(exact) + np.log1p(np.abs(exact))).tobytes()
    yield "numpy's sum", exact.sum(0).tobytes() + np.cumsum(exact).tobytes()
    with TemporaryDirectory() as folder:
        yield from _on_the_tiny_model(Path(folder))


def _on_the_tiny_model(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Files that the study's own code writes of the tiny model."""
    from circuitdrift.attribution.trace import tokenise, trace_circuits
    from circuitdrift.circuits.files import save_circuits
    from circuitdrift.core.prompts import Example, Prompt
    from circuitdrift.core.tokens import load_tokenizer
    from circuitdrift.importing.tiny import write_tiny
    from circuitdrift.models.loading import load_model
    from circuitdrift.models.lora import adapted, add_lora
    from circuitdrift.training import labelled, train

    sentences = (("The word blarf means happy", "happy"), ("The ball glides upward", "upward"))
    examples = [
        Example(text, "", "", meaning, text.rindex(meaning)) for text, meaning in 2 * sentences
    ]
    base, checkpoints = folder / "base", folder / "checkpoints"
    write_tiny(base)
    tokenizer = load_tokenizer(base)
    train(
        add_lora(load_model(base), TRAIN.lora, seed=0),
        [labelled(tokenizer, example, TRAIN.loss_on) for example in examples],
        settings=TRAIN,
        order_seed=0,
        dropout_seed=0,
        checkpoints=checkpoints,
        log=folder / "log",
    )
    adapter = checkpoints / "100"
    yield "training", (adapter / "adapter_model.safetensors").read_bytes()
    text, meaning = sentences[0]
    question = text.removesuffix(f" {meaning}")
    start, answers = text.index("blarf"), (meaning, "sad", "fast")
    prompt = Prompt("a", "near", "simple", "blarf", "t", question, start, meaning, answers)
    model = load_model(base)
    with adapted(model, adapter):
        circuits = trace_circuits(model, tokenise([prompt], model, tokenizer), ATTRIBUTION, {"a"})
    save_circuits(folder / "circuits.safetensors", circuits)
    yield "attribution", (folder / "circuits.safetensors").read_bytes()


def main(kernels: str) -> None:
    compute = Compute.model_validate({"threads": THREADS, "kernels": kernels})
    set_kernels(compute)
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no part of the answer
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in computations(compute)}
    answer = {"kernels": kernels, "threads": THREADS, "hashes": hashes}
    os.write(out, (json.dumps(answer, indent=2) + "\n").encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
