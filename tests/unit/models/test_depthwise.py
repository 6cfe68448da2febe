import pytest
import torch
from torch import nn
from torch.nn import functional

from kinglet.models.depthwise import LARGEST_MAP, DepthwiseConv2d, weight_gradient

SIZES = [(1, 1), (2, 2), (3, 3), (4, 4), (6, 6), (7, 7), (1, 5), (5, 2), (3, 8)]


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", SIZES)
def test_weight_gradient_is_that_of_autograd(kernel, stride, size):
    generator = torch.Generator().manual_seed(kernel * 10 + stride)
    x = torch.randn(3, 4, *size, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 1, kernel, kernel, generator=generator, dtype=torch.float64, requires_grad=True)
    y = functional.conv2d(x, weight, None, stride, kernel // 2, 1, 4)
    output_gradient = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(y, weight, output_gradient)
    found = weight_gradient(x, output_gradient, kernel, stride, kernel // 2)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "size"), [(3, 2), (3, 9), (5, 2), (5, 6), (5, 7)])
def test_layer_is_torchs_convolution_forward_and_backward(kernel, size, stride, has_bias):
    torch.manual_seed(0)
    reference = nn.Conv2d(6, 6, kernel, stride, kernel // 2, groups=6, bias=has_bias).train()
    own = DepthwiseConv2d(6, kernel, stride).train()
    if has_bias:  # as after a batch normalization was folded in
        own.bias = nn.Parameter(torch.empty(6))
    own.load_state_dict(reference.state_dict())
    results = []
    for layer in (reference, own):
        x = torch.randn(2, 6, size, size, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = layer(x)
        (y * torch.arange(y.numel()).view_as(y).cos()).sum().backward()
        results.append([y, x.grad, *(parameter.grad for parameter in layer.parameters())])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", list(LARGEST_MAP))
def test_small_maps_take_the_fast_gradient_and_large_ones_the_librarys(kernel):
    layer = DepthwiseConv2d(2, kernel, 1).train()
    largest = int(LARGEST_MAP[kernel] ** 0.5)
    assert "Depthwise" in layer(torch.randn(1, 2, largest, largest)).grad_fn.name()
    assert "Depthwise" not in layer(torch.randn(1, 2, largest + 1, largest + 1)).grad_fn.name()
    assert "Depthwise" not in layer.eval()(torch.randn(1, 2, largest, largest)).grad_fn.name()
