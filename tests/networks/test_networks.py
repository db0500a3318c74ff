"""Laws that every network keeps, whatever its size and dimension."""

import math

import pytest
import torch
from torch.nn import functional as F

from langevin.errors import UsageError
from langevin.networks import MLP, Network, UNet, default_size
from langevin.networks.layers import attend, even, places, spread
from langevin.registry import find, name_of

CONDITIONS = {
    "label": {"kind": "class", "num": 3},
    "size": {"kind": "number"},
    "text": {"kind": "tokens", "dim": 5},
    "low": {"kind": "image", "channels": 2},
}
SMALL = {"widths": [8, 16], "head": 8, "features": 16, "blocks": 1}
SHAPES = {
    "7x7": (3, 7, 7),
    "13x17": (1, 13, 17),
    "28x28": (1, 28, 28),
    "1-D 100": (2, 100),
    "3-D 5x6x7": (1, 5, 6, 7),
}


def stir(net: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give every parameter, the zero ones too, a value."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=g).mul_(0.3 / math.sqrt(p[0].numel() if p.dim() > 1 else 1)))
    return net


def unet(shape: tuple[int, ...], **more: object) -> UNet:
    torch.manual_seed(0)
    return UNet(**{"channels": shape[0], "dims": len(shape) - 1, **SMALL, **more})


def mlp(shape: tuple[int, ...], **more: object) -> MLP:
    torch.manual_seed(0)
    return MLP(**{"channels": shape[0], "width": 16, "features": 16, **more})


def batch(shape: tuple[int, ...], n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, *shape, generator=g), torch.linspace(-3, 3, n)


def told(shape: tuple[int, ...]) -> UNet:
    """A U-Net that knows where its pixels lie."""
    return unet(shape, coordinates=True)


CASES = [pytest.param(unet, s, id=f"unet {n}") for n, s in SHAPES.items()]
CASES += [pytest.param(told, SHAPES["13x17"], id="unet with coordinates"), pytest.param(mlp, (6,), id="mlp")]
every = pytest.mark.parametrize(("make", "shape"), CASES)


@every
def test_fresh_output_is_exactly_zero(make, shape):
    x, c = batch(shape)
    assert torch.equal(make(shape)(x, c), torch.zeros_like(x))


@every
def test_config_rebuilds_the_network(make, shape):
    first = stir(make(shape))
    torch.manual_seed(7)
    again = type(first)(**first.config)
    again.load_state_dict(first.state_dict())
    x, c = batch(shape)
    assert first(x, c).abs().max() > 0.01
    assert torch.equal(first(x, c), again(x, c))


@every
def test_samples_ignore_their_batch_mates(make, shape):
    net = stir(make(shape)).double()
    x, c = (u.double() for u in batch(shape))
    x.requires_grad_()
    y = net(x, c)
    halves = torch.cat([net(x[:4], c[:4]), net(x[4:], c[4:])])
    torch.testing.assert_close(y, halves, rtol=1e-10, atol=1e-10)
    (g,) = torch.autograd.grad(y[2].square().sum(), x)
    assert g[2].abs().max() > 0
    assert torch.equal(g[[0, 1, 3, 4, 5, 6, 7]], torch.zeros_like(g[1:]))


@every
def test_gradient_reaches_every_parameter(make, shape):
    net = stir(make(shape))
    x, c = batch(shape)
    net(x, c).square().mean().backward()
    dead = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not dead


@every
def test_gradient_is_the_slope(make, shape):
    net = stir(make(shape)).double()
    x, c = (u.double() for u in batch(shape, 2))
    params = list(net.parameters())
    g = torch.Generator().manual_seed(3)
    directions = [torch.randn(p.shape, generator=g, dtype=p.dtype) for p in params]
    loss = lambda: net(x, c).sin().sum()  # noqa: E731
    slope = sum((p * d).sum() for p, d in zip(torch.autograd.grad(loss(), params), directions, strict=True))
    h, ends = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            torch._foreach_add_(params, directions, alpha=sign * h)
            ends.append(loss())
            torch._foreach_add_(params, directions, alpha=-sign * h)
    torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * h), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("shape", [s for s in SHAPES.values() if len(s) > 2], ids=str)
def test_memory_layout_does_not_matter(shape):
    net = stir(unet(shape)).double()
    x, c = (u.double() for u in batch(shape))
    last = x.contiguous(memory_format=torch.channels_last if len(shape) == 3 else torch.channels_last_3d)
    torch.testing.assert_close(net(x, c), net(last, c), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=str)
def test_sizes_that_do_not_divide_are_filled_with_zeros(shape):
    """By definition: an odd size gives what the input with zeros at the end, up to a multiple of patch, gives."""
    net = stir(unet(shape)).double()
    x, c = (u.double() for u in batch(shape))
    y, padded = net(x, c), net(even(x, net.patch), c)
    torch.testing.assert_close(y, padded[tuple(slice(n) for n in x.shape)], rtol=1e-10, atol=1e-10)
    assert y.shape == x.shape


def test_first_convolution_is_unshuffle_and_convolution():
    net = unet((2, 8, 8)).double()
    x = torch.randn(3, 2, 8, 8).double()
    w = net.enter.weight  # (out, C, 6, 6) -> 3x3 blocks of 2x2
    blocks = w.unflatten(3, (3, 2)).unflatten(2, (3, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    expected = F.conv2d(F.pixel_unshuffle(x, 2), blocks, net.enter.bias, padding=1)
    torch.testing.assert_close(net.enter(x), expected)


def test_places_are_the_corners_and_what_lies_between():
    rows, columns = places(torch.zeros(2, 3, 2, 3))[1]
    assert rows.tolist() == [[-1, -1, -1], [1, 1, 1]]
    assert columns.tolist() == [[-1, 0, 1], [-1, 0, 1]]


def test_who_is_told_where_it_is_need_not_see_the_border():
    """One pixel in an empty picture: a middle far from all borders is told from another one by its coordinates alone."""
    x, c = torch.zeros(2, 1, 65, 65), torch.zeros(2)
    x[0, 0, 30, 30] = x[1, 0, 34, 34] = 1.0  # a multiple of all that the network divides by
    for make, differ in ((unet, False), (told, True)):
        net = stir(make((1, 65, 65)) if differ else make((1, 65, 65), attention=[]))
        a, b = net(x, c)
        apart = (a[0, 26:35, 26:35] - b[0, 30:39, 30:39]).abs().max().item()
        assert (apart > 1e-3) is differ


def test_spread_is_pixel_shuffle():
    x = torch.randn(2, 3 * 9, 4, 5)
    assert torch.equal(spread(x, 3), F.pixel_shuffle(x, 3))
    assert torch.equal(spread(x[..., 0], 3)[:, 5, 7], x[:, 3 * 5 + 7 % 3, 7 // 3, 0])


def test_attend_is_scaled_dot_product_attention():
    q, k, v = torch.randn(3, 2, 2, 5, 8).double()
    mask = torch.rand(2, 1, 1, 5) > 0.4
    mask[..., 0] = True
    torch.testing.assert_close(attend(q, k, v), F.scaled_dot_product_attention(q, k, v))
    torch.testing.assert_close(attend(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, attn_mask=mask))


def conditioned(**more: object) -> tuple[UNet, torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    net = stir(unet((1, 6, 6), conditions=CONDITIONS, **more)).double()
    x, c = (u.double() for u in batch((1, 6, 6)))
    g = torch.Generator().manual_seed(2)
    cond = {
        "label": torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]),
        "size": torch.randn(8, generator=g).double(),
        "text": torch.randn(8, 4, 5, generator=g).double(),
        "low": torch.randn(8, 2, 6, 6, generator=g).double(),
    }
    return net, x, c, cond


def nothing(key: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
    """`value` with "no condition" said for each sample."""
    if key == "label":
        return {key: torch.full_like(value, 3)}
    if key == "text":
        return {key: value, "text_mask": torch.zeros(value.shape[:2], dtype=torch.bool)}
    return {key: torch.full_like(value, torch.nan)}


@pytest.mark.parametrize("key", CONDITIONS)
def test_no_condition_is_a_missing_key(key):
    net, x, c, cond = conditioned()
    missing = net(x, c, {k: v for k, v in cond.items() if k != key})
    torch.testing.assert_close(net(x, c, cond | nothing(key, cond[key])), missing, rtol=1e-12, atol=1e-12)
    assert (net(x, c, cond) - missing).abs().flatten(1).amax(1).min() > 1e-4  # and the condition speaks to every sample


@pytest.mark.parametrize("key", CONDITIONS)
def test_conditions_of_one_sample_reach_it_alone(key):
    net, x, c, cond = conditioned()
    other = dict(cond)
    other[key] = cond[key].clone()
    other[key][5] = cond[key][4]
    moved = (net(x, c, other) - net(x, c, cond)).abs().flatten(1).amax(1)
    assert moved[5] > 1e-4
    assert moved[[0, 1, 2, 3, 4, 6, 7]].max() < 1e-10


def test_masked_tokens_are_as_if_they_were_not_there():
    net, x, c, cond = conditioned()
    mask = torch.tensor([[True, True, False, False]]).expand(8, 4)
    noisy = cond["text"].clone()
    noisy[:, 2:] = torch.inf
    short = net(x, c, cond | {"text": cond["text"][:, :2]})
    torch.testing.assert_close(net(x, c, cond | {"text": noisy, "text_mask": mask}), short, rtol=1e-12, atol=1e-12)


def test_attention_ignores_the_order_of_tokens():
    net, x, c, cond = conditioned()
    turned = cond | {"text": cond["text"].flip(1)}
    torch.testing.assert_close(net(x, c, turned), net(x, c, cond), rtol=1e-10, atol=1e-10)


def test_wrong_conditions_name_the_right_ones():
    net, x, c, _ = conditioned()
    with pytest.raises(UsageError, match="did you mean `label`"):
        net(x, c, {"lable": torch.zeros(8)})
    with pytest.raises(UsageError, match="did you mean `number`"):
        MLP(channels=2, conditions={"a": {"kind": "numbr"}})
    with pytest.raises(UsageError, match="takes num"):
        MLP(channels=2, conditions={"a": {"kind": "class", "count": 3}})


@pytest.mark.parametrize(
    "wrong",
    [{"dims": 4}, {"widths": []}, {"attention": [2]}, {"widths": [8, 17]}, {"blocks": 0}],
    ids=str,
)
def test_sizes_that_cannot_be(wrong):
    with pytest.raises(UsageError):
        unet((1, 8, 8), **wrong)


def test_wrong_number_of_axes():
    with pytest.raises(UsageError, match="2 spatial axes"):
        unet((1, 8, 8))(torch.zeros(2, 1, 8), torch.zeros(2))


@pytest.mark.parametrize("name", ["unet", "mlp"])
def test_found_by_name(name):
    assert name_of(find("langevin.networks", name, Network)) == name


def fit(net, inputs, target, steps, lr=3e-3):
    opt = torch.optim.Adam(net.parameters(), lr=lr)
    for _ in range(steps):
        opt.zero_grad()
        loss = (net(*inputs) - target).square().mean()
        loss.backward()
        opt.step()
    return loss.item()


def test_mlp_learns_a_map_that_depends_on_noise_level_and_label():
    net = mlp((4,), width=64, conditions={"label": {"kind": "class", "num": 2}})
    x, c, label = torch.randn(256, 4), torch.empty(256).uniform_(-2, 2), torch.arange(256) % 2
    target = x.roll(1, 1) * c.sin()[:, None] + (2.0 * label - 1)[:, None]  # variance about 1.5
    assert fit(net, (x, c, {"label": label}), target, 300) < 0.02


def test_unet_learns_to_turn_a_picture():
    """Mirroring needs the bottom level: no 3x3 window sees the other side."""
    net = unet((1, 8, 8), widths=[16, 32], head=16)
    x = torch.randn(16, 1, 8, 8)
    assert fit(net, (x, torch.zeros(16)), x.flip(-1), 200) < 0.02


@pytest.mark.parametrize(
    "shape",
    [
        (1, 28, 28),
        (3, 64, 64),
        (1, 8, 8),
        (3, 32, 32),
        (1, 13, 17),
        (3, 256, 256),
        (4, 100),
        (1, 8000),
        (1, 16, 16, 16),
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [200, 60000])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_default_size_works_at_low_resolution(shape, count, scale):
    size = default_size(shape, count, scale)
    seen = []
    with torch.device("meta"):
        net = UNet(**size)
        net.bottom[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2:]))
        net.down[0][0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2:]))
        net(torch.empty(1, *shape), torch.empty(1))
    finest, lowest = (math.prod(s) for s in seen)
    assert finest <= 144 or finest <= math.prod(shape[1:]) / 1.8  # half resolution, unless tiny
    assert 8 <= lowest <= 100  # few enough positions to attend to each other, enough to hold a picture


def test_default_size_of_vectors():
    assert MLP(**default_size((12,), 1000)).config["channels"] == 12
