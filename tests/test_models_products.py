"""Products by oneDNN are products, whatever the strides, and have torch's gradients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from circuitdrift.models import products


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """oneDNN while a test lasts; the shapes of the products that went to it."""
    shapes: list[tuple[int, ...]] = []
    own = torch.ops.mkldnn._linear_pointwise

    def multiply(a: torch.Tensor, b: torch.Tensor, *rest: object) -> torch.Tensor:
        shapes.append((*a.shape, len(b)))
        return own(a, b, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", multiply)
    library = products.multiply_by_onednn.__wrapped__()
    yield shapes
    library._destroy()


def test_products_of_any_strides(onednn: list[tuple[int, ...]]) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(shape, generator=generator) for shape in ((30, 300), (200, 300), (7, 5)))
    for x, y in ((a, b.T), (b, a.T), (b.T, b), (c, c.T), (a[::2, ::2], b[:, ::2].T)):
        torch.testing.assert_close(x @ y, (x.double() @ y.double()).float(), rtol=1e-4, atol=1e-4)
    assert onednn == [(30, 300, 200), (200, 300, 30), (300, 200, 300)]


def test_gradients_of_a_linear_layer(onednn: list[tuple[int, ...]]) -> None:
    layer = torch.nn.Linear(256, 128, bias=False)
    x = torch.randn(4, 16, 256, requires_grad=True)
    layer(x).square().sum().backward()
    exact = torch.nn.Linear(256, 128, bias=False).double()
    exact.weight.data.copy_(layer.weight.data)
    y = x.detach().double().requires_grad_()
    exact(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.weight.grad, exact.weight.grad.float(), rtol=1e-4, atol=1e-4)
    assert sorted(onednn) == [(64, 128, 256), (64, 256, 128), (128, 64, 256)]
