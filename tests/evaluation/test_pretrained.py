"""Networks of others, with random weights: their arithmetic against closed forms, and against the packages they come from."""

import json
import sys
import types
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from scipy.special import softmax

from langevin.data.show import as_rgb
from langevin.errors import DataError, RefusedError, UsageError
from langevin.evaluation.pretrained import Pretrained, as_pictures, pretrained
from langevin.evaluation.pretrained.inception import (
    EPSILON,
    SIDE,
    fold,
    inception_score,
    resize_clean,
    resize_legacy,
    shapes,
)
from langevin.registry import names


def normal(*shape):
    return np.random.default_rng(shape).normal(size=shape)


def pictures(*shape, kind=np.uint8, low=0):
    return np.random.default_rng(shape).integers(low, np.iinfo(kind).max, shape, endpoint=True, dtype=kind)


# Pictures as they come


@pytest.mark.parametrize(("shape", "kind"), [((3, 5, 4), "u1"), ((3, 5, 4, 1), "u2"), ((3, 5, 4, 3), "u2")])
def test_integers_are_those_that_are_shown(shape, kind):
    items = pictures(*shape, kind=np.dtype(kind).type)
    np.testing.assert_array_equal(as_pictures(items), as_rgb(items))


def test_transparency_lies_on_white():
    items = pictures(2, 6, 6, 4)
    colour, alpha = items[..., :3].astype(float), items[..., 3:] / 255
    np.testing.assert_allclose(as_pictures(items), colour * alpha + 255 * (1 - alpha), atol=0.5 + 1e-4)
    items[..., 3] = 0
    assert (as_pictures(items) == 255).all()
    items[..., 3] = 255
    np.testing.assert_array_equal(as_pictures(items), items[..., :3])


def test_floats_need_a_span_and_come_back_by_it():
    whole = pictures(2, 5, 5, 3)
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        items = (low + (high - low) * whole / 255.0).astype(np.float32)
        np.testing.assert_array_equal(as_pictures(items, (low, high)), whole)
    assert as_pictures(np.full((1, 1, 1), 9.0), (0, 1)).max() == 255
    with pytest.raises(DataError, match="no known range"):
        as_pictures(whole / 255.0)


@pytest.mark.parametrize(
    ("items", "span"),
    [
        (np.zeros((2, 4, 4, 2), np.uint8), None),
        (np.zeros((2, 0, 4, 3), np.uint8), None),
        (np.zeros((4, 4), np.uint8), None),
        (np.zeros((2, 4, 4, 3), np.int64), None),
        (np.full((2, 4, 4, 3), np.nan), (0, 1)),
        (np.zeros((2, 4, 4, 3)), (1, 1)),
    ],
)
def test_what_is_no_picture_is_refused(items, span):
    with pytest.raises(DataError):
        as_pictures(items, span)


# Inception's two ways of resizing


def resize(picture, weigh):
    """By rows of weights (299, size) made one pixel at a time, in float64."""
    rows, columns = (np.stack([weigh(i, size) for i in range(SIDE)]) for size in picture.shape[:2])
    return rows @ np.moveaxis(picture.astype(np.float64), -1, 0) @ columns.T


def tensorflow(i, size):
    at = i * size / SIDE
    low, weights = int(at), np.zeros(size)
    weights[low] += 1 - (at - low)
    weights[min(low + 1, size - 1)] += at - low
    return weights


def keys_cubic(i, size):
    """Keys 1981, a = -1/2, as wide as the step where that is above one pixel."""
    step = size / SIDE
    x = np.abs((np.arange(size) + 0.5 - (i + 0.5) * step) / max(step, 1))
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum()


@pytest.mark.parametrize("size", [(17, 32), (310, 641), (299, 299)])
def test_resize(size):
    items = pictures(2, *size, 3)
    legacy, clean = resize_legacy(items), resize_clean(items)
    for k in range(2):
        np.testing.assert_allclose(legacy[k], resize(items[k], tensorflow), atol=2e-2 if size[1] > 300 else 5e-3)
        np.testing.assert_allclose(clean[k], resize(items[k], keys_cubic).clip(0, 255), atol=1e-3)


def test_legacy_takes_every_second_pixel_and_clean_smooths():
    items = pictures(1, 2 * SIDE, 2 * SIDE, 3)
    expected = np.moveaxis(items[:, ::2, ::2], -1, 1)
    np.testing.assert_array_equal(resize_legacy(items), expected)
    assert resize_clean(items).std() < 0.7 * expected.std()


def test_clean_keeps_constants_and_slopes():
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None], (200, 200, 3))
    found = resize_clean(np.stack([ramp, np.full_like(ramp, 77)]))
    inner = slice(8, -8)
    expected = (np.arange(SIDE) + 0.5) * 200 / SIDE - 0.5
    np.testing.assert_allclose(found[0, 0, inner, 5], expected[inner], atol=1e-3)
    np.testing.assert_allclose(found[1], 77, atol=1e-4)


# Inception itself


def state_dict(seed=0):
    """Random weights that keep the size of values through the network."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes().items():
        if len(shape) > 1:
            state[name] = torch.randn(shape, generator=generator) * (2 / np.prod(shape[1:])) ** 0.5
        elif name.endswith(("bn.weight", "running_var")):
            state[name] = 0.7 + 0.6 * torch.rand(shape, generator=generator)
        else:
            state[name] = 0.1 * torch.randn(shape, generator=generator)
    return state


@pytest.fixture(scope="module")
def state():
    return state_dict()


@pytest.fixture(scope="module")
def weights(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def network(weights):
    return pretrained("inception", weights)


def test_names_are_files():
    assert set(names("langevin.evaluation.pretrained", Pretrained)) == {"inception", "dinov2", "clip"}
    with pytest.raises(UsageError, match="did you mean `inception`"):
        pretrained("inceptoin", "x.safetensors")
    with pytest.raises(UsageError, match="did you mean `resize`"):
        pretrained("inception", "x.safetensors", resizes="clean")


def test_as_many_weights_as_published():
    """Without its head, Keras tells 21,802,784: kernels and, for 17,216 channels, bias, mean and variance."""
    kernels = [shape for name, shape in shapes().items() if name.endswith("conv.weight")]
    assert sum(shape[0] for shape in kernels) == 17_216
    assert sum(np.prod(shape) for shape in kernels) == 21_802_784 - 3 * 17_216
    assert shapes()["fc.weight"] == (1008, 2048)


def test_fold_is_convolution_and_normalisation(state):
    name, x = "Mixed_6b.branch7x7_2", torch.randn(2, 128, 9, 9, generator=torch.Generator().manual_seed(1))
    bn = [state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    expected = F.batch_norm(F.conv2d(x, state[f"{name}.conv.weight"]), *bn, eps=EPSILON)
    torch.testing.assert_close(F.conv2d(x, *fold(state, name)), expected, rtol=1e-5, atol=1e-5)


def mean_3x3(m):
    """Over those of the nine that are in the picture."""
    ones, m = np.pad(np.ones_like(m), 1), np.pad(m, 1)
    total, count = (
        sum(a[i : i + len(m) - 2, j : j + len(m) - 2] for i in range(3) for j in range(3)) for a in (m, ones)
    )
    return total / count


def max_3x3(m, step=1, pad=0):
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(m, pad, constant_values=-np.inf), (3, 3))
    return windows[::step, ::step].max((2, 3))


def test_wiring(tmp_path):
    """Kernels that take the middle pixel's mean over channels leave only pools, strides and joins: done here on single maps."""
    state = {}
    for name, shape in shapes().items():
        state[name] = torch.zeros(shape)
        if name.endswith("conv.weight"):
            state[name][:, :, shape[2] // 2, shape[3] // 2] = 1 / shape[1]
        elif name.endswith("bn.weight"):
            state[name] += 1
        elif name.endswith("running_var"):
            state[name] += 1 - EPSILON
    save_file(state, tmp_path / "middle.safetensors")
    items = pictures(1, SIDE, SIDE, 3, low=128)  # above zero after (x - 128) / 128

    def joined(maps):
        return sum(n * m for n, m in maps) / sum(n for n, _ in maps)

    m = ((items[0].astype(float) - 128) / 128).mean(-1)
    m = m[1:-1:2, 1:-1:2][1:-1, 1:-1]
    m = max_3x3(m, 2)[1:-1, 1:-1]
    maps = [(192, max_3x3(m, 2))]
    for pool in (32, 64, 64):
        m = joined(maps)
        maps = [(64 + 64 + 96, m), (pool, mean_3x3(m))]
    maps = [(384 + 96, joined(maps)[1:-1:2, 1:-1:2])] + [(n, max_3x3(m, 2)) for n, m in maps]
    for _ in range(4):
        m = joined(maps)
        maps = [(3 * 192, m), (192, mean_3x3(m))]
    maps = [(320 + 192, joined(maps)[1:-1:2, 1:-1:2])] + [(n, max_3x3(m, 2)) for n, m in maps]
    for pool in (mean_3x3, lambda m: max_3x3(m, pad=1)):
        maps = [(320 + 4 * 384, joined(maps)), (192, joined([(n, pool(m)) for n, m in maps]))]
    expected = np.concatenate([np.full(n, m.mean()) for n, m in maps])
    found = pretrained("inception", tmp_path / "middle.safetensors")(items)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_the_same_bits_again_and_no_neighbour_matters(network):
    items = pictures(3, 40, 33)
    found = network(items)
    assert found.shape == (3, network.dim) == (3, 2048) and found.dtype == np.float64
    np.testing.assert_array_equal(network(items), found)
    np.testing.assert_allclose(network(items, batch=1), found, rtol=1e-4, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-2
    assert network(items[:0]).shape == (0, 2048)
    with pytest.raises(UsageError):
        network(items, batch=0)


def test_head_and_score(network, state):
    features = normal(7, 2048)
    expected = softmax(features @ state["fc.weight"].double().numpy().T, axis=1)
    np.testing.assert_allclose(network.probabilities(features), expected, rtol=1e-9)
    sure = np.eye(5)[np.arange(40) % 5]
    assert inception_score(sure, splits=4) == pytest.approx((5.0, 0.0))
    assert inception_score(np.sort(sure, axis=0), splits=1)[0] == pytest.approx(inception_score(sure, 1)[0])
    assert inception_score(np.tile(expected[:1], (6, 1)), splits=2) == pytest.approx((1.0, 0.0))
    with pytest.raises(DataError):
        inception_score(sure, splits=41)


def test_digest_is_of_every_byte_and_of_the_way(network, weights, tmp_path):
    clean = pretrained("inception", weights, resize="clean")
    assert (network.frechet_name, clean.frechet_name) == ("fid", "clean-fid")
    assert clean.digest != network.digest == pretrained("inception", weights).digest
    body = bytearray(weights.read_bytes())
    body[-1_000_000] ^= 1
    (tmp_path / weights.name).write_bytes(body)
    assert pretrained("inception", tmp_path / weights.name).digest != network.digest
    with pytest.raises(UsageError, match="clean"):
        pretrained("inception", weights, resize="bicubic")


def test_counters_of_batches_are_passed_over(state, network, tmp_path):
    counted = {f"{k.removesuffix('bias')}num_batches_tracked": torch.tensor(0) for k in state if k.endswith("bn.bias")}
    save_file(state | counted, tmp_path / "counted.safetensors")
    items = pictures(1, 20, 20)
    np.testing.assert_array_equal(pretrained("inception", tmp_path / "counted.safetensors")(items), network(items))


def test_what_could_run_code_is_not_opened(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "pt_inception.pth")
    with pytest.raises(RefusedError, match="weights_only=True") as told:
        pretrained("inception", tmp_path / "pt_inception.pth")
    code = "\n".join(line.strip() for line in told.value.help.splitlines()[1:])
    assert len(code.splitlines()) == 3
    compile(code, "help", "exec")
    (tmp_path / "pt_inception.pth").rename(tmp_path / "renamed.safetensors")
    with pytest.raises(RefusedError):
        pretrained("inception", tmp_path / "renamed.safetensors")
    with pytest.raises(UsageError, match="no such file"):
        pretrained("inception", tmp_path / "none.safetensors")


def test_other_weights_are_refused_by_name(state, tmp_path):
    path = tmp_path / "w.safetensors"
    other = {k: v for k, v in state.items() if k != "Mixed_5b.branch1x1.conv.weight"} | {"fc.bias": torch.zeros(1000)}
    save_file(other, path)
    with pytest.raises(RefusedError, match=r"Mixed_5b\.branch1x1\.conv\.weight missing.*fc\.bias"):
        pretrained("inception", path)
    save_file(state | {"fc.bias": state["fc.bias"].half()}, path)
    with pytest.raises(RefusedError, match="float16"):
        pretrained("inception", path)


# Inception beside the packages that published FIDs are taken with


@pytest.mark.parametrize("size", [(32, 32), (301, 517)])
def test_as_torch_fidelity(state, network, tmp_path, size):
    peer = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.save(state, tmp_path / "peer.pth")
    peer = peer.FeatureExtractorInceptionV3("peer", ["2048", "logits_unbiased"], str(tmp_path / "peer.pth")).eval()
    items = pictures(2, *size, 3)
    with torch.no_grad():
        features, logits = (out.double().numpy() for out in peer(torch.from_numpy(items).permute(0, 3, 1, 2)))
    found = network(items)
    off = np.abs(found - features).max() / np.abs(features).max()
    print(f"\n{size}: {off:.1e} of the largest feature")
    assert off < 1e-5
    np.testing.assert_allclose(found, features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(network.probabilities(found), softmax(logits, axis=1), rtol=1e-3)


def test_score_as_torch_fidelity():
    peer = pytest.importorskip("torch_fidelity.metric_isc")
    logits = normal(60, 1008) * 3
    expected = peer.isc_features_to_metric(torch.from_numpy(logits), splits=5, shuffle=False).values()
    assert inception_score(softmax(logits, axis=1), splits=5) == pytest.approx(tuple(expected), rel=1e-9)


def test_resize_as_clean_fid():
    peer = pytest.importorskip("cleanfid.resize")
    items = pictures(2, 37, 410, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        expected = np.stack([np.moveaxis(peer.build_resizer("clean")(item), -1, 0) for item in items])
    np.testing.assert_array_equal(resize_clean(items), expected)


# Folders of models


def folder(path, kind, shorter, side):
    """What lies beside the weights."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"model_type": kind}))
    (path / "preprocessor_config.json").write_text(json.dumps(preparation(shorter, side)))
    return path


def preparation(shorter, side):
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    size, crop = {"shortest_edge": shorter}, {"height": side, "width": side}
    return {"size": size, "crop_size": crop, "resample": 3, "image_mean": mean, "image_std": std}


@pytest.mark.parametrize("name", ["dinov2", "clip"])
def test_a_missing_package_is_named_with_its_extra(name, tmp_path, monkeypatch):
    made = folder(tmp_path / name, name, 32, 28)
    save_file({"a": torch.zeros(1)}, made / "model.safetensors")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"langevin\[diffusers\]"):
        pretrained(name, made)


def test_only_safetensors_are_opened(tmp_path):
    made = folder(tmp_path / "m", "clip", 32, 32)
    torch.save({}, made / "pytorch_model.bin")
    with pytest.raises(RefusedError, match="could run code"):
        pretrained("clip", made)


def test_another_kind_of_model_or_preparation_is_refused(tmp_path):
    made = folder(tmp_path / "m", "bert", 32, 32)
    save_file({"a": torch.zeros(1)}, made / "model.safetensors")
    with pytest.raises(RefusedError, match="bert"):
        pretrained("clip", made)
    for change in ({"do_resize": False}, {"rescale_factor": 1 / 127.5}, {"size": {"height": 3}}, {"image_std": [1, 1]}):
        (made / "preprocessor_config.json").write_text(json.dumps(preparation(32, 32) | change))
        with pytest.raises(RefusedError, match="prepared"):
            pretrained("clip", made)


def test_nothing_is_fetched_unless_it_is_said(tmp_path, monkeypatch):
    asked = []

    def snapshot_download(name, **how):
        asked.append((name, how["local_files_only"], how["revision"]))
        raise OSError("not here")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    with pytest.raises(UsageError, match="download=True"):
        pretrained("dinov2", "someone/dinov2-small")
    with pytest.raises(UsageError, match="not here"):
        pretrained("dinov2", "someone/dinov2-small", download=True, revision="abc")
    for path in (tmp_path / "a" / "b", "./a/b", "none", str(tmp_path / "none")):
        with pytest.raises(UsageError, match="no such folder"):
            pretrained("dinov2", path, download=True)
    assert asked == [("someone/dinov2-small", True, None), ("someone/dinov2-small", False, "abc")]


# DINOv2 and CLIP beside the package that holds them


@pytest.fixture(scope="module")
def transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def dinov2(transformers, tmp_path_factory):
    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("dinov2")
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, layerscale_value=0.5
    )
    transformers.Dinov2Model(config).save_pretrained(made)
    (made / "preprocessor_config.json").write_text(json.dumps(preparation(33, 28)))
    return made


def tensors_of(transformers, made, items):
    """By the processor of that package."""
    try:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Processor
    except ImportError:  # before it had two kinds
        from transformers import CLIPImageProcessor as Processor

    processor = Processor.from_pretrained(made)
    return processor(images=list(as_pictures(items)), return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("shape", [(3, 41, 70, 3), (3, 90, 30, 4), (3, 20, 20)])
def test_dinov2_as_transformers(transformers, dinov2, shape):
    items = pictures(*shape)
    network = pretrained("dinov2", dinov2)
    with torch.no_grad():
        model = transformers.Dinov2Model.from_pretrained(dinov2).eval()
        expected = model(tensors_of(transformers, dinov2, items)).pooler_output  # which is the normed class token
    np.testing.assert_allclose(network(items, batch=2), expected, rtol=1e-4, atol=1e-5)
    assert network.dim == 32 and network.frechet_name == "frechet[dinov2]"
    np.testing.assert_allclose(expected.mean(1), 0, atol=1e-5)  # the last norm's gain is 1 in a new network


def test_weights_that_are_missing_are_not_made_up(dinov2, tmp_path):
    for file in dinov2.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    before = pretrained("dinov2", tmp_path).digest
    assert before == pretrained("dinov2", dinov2).digest
    state = load_file(dinov2 / "model.safetensors")
    save_file(
        {k: v + (k == "layernorm.bias") for k, v in state.items()}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    assert pretrained("dinov2", tmp_path).digest != before
    del state["layernorm.bias"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(RefusedError, match=r"missing: layernorm\.bias"):
        pretrained("dinov2", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04nothing")
    with pytest.raises(RefusedError, match="cannot be read"):
        pretrained("dinov2", tmp_path)


@pytest.fixture(scope="module")
def clip(transformers, tmp_path_factory):
    torch.manual_seed(3)
    made = tmp_path_factory.mktemp("clip")
    letters = [chr(c) for c in range(97, 123)]
    tokens = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    transformers.CLIPTokenizer(vocab={t: k for k, t in enumerate(tokens)}, merges=[]).save_pretrained(made)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    small["initializer_factor"] = 3.0  # so that cosines have either sign
    words = {
        "vocab_size": 54,
        "max_position_embeddings": 16,
        "bos_token_id": 52,
        "eos_token_id": 53,
        "pad_token_id": 53,
    }
    config = transformers.CLIPConfig(
        text_config=small | words, vision_config=small | {"image_size": 32, "patch_size": 8}, projection_dim=24
    )
    transformers.CLIPModel(config).save_pretrained(made)
    (made / "preprocessor_config.json").write_text(json.dumps(preparation(32, 32)))
    return made


TEXTS = ["a dog", "two cats that sit on a very long and red chair", "x"]


def test_clip_as_transformers(transformers, clip):
    items = pictures(3, 41, 50, 3)
    network = pretrained("clip", clip)
    model, split = transformers.CLIPModel.from_pretrained(clip).eval(), transformers.CLIPTokenizer.from_pretrained(clip)
    tokens = split(TEXTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    with torch.no_grad():
        out = model(pixel_values=tensors_of(transformers, clip, items), **tokens)
    seen, read = network(items), network.embed_texts(TEXTS, batch=2)
    assert seen.shape == read.shape == (3, network.dim) == (3, 24)
    np.testing.assert_allclose(seen / np.linalg.norm(seen, axis=1, keepdims=True), out.image_embeds, atol=1e-5)
    np.testing.assert_allclose(read / np.linalg.norm(read, axis=1, keepdims=True), out.text_embeds, atol=1e-5)
    cosine = (out.logits_per_image / model.logit_scale.exp()).detach().double().numpy()
    for k in range(3):  # each picture against each text, so that some are below zero
        turned = [*TEXTS[k:], *TEXTS[:k]]
        expected = 100 * np.maximum(cosine[np.arange(3), (np.arange(3) + k) % 3], 0)
        np.testing.assert_allclose(network.clip_score(items, turned), expected, atol=1e-3)
    assert (cosine > 0.01).any() and (cosine < -0.01).any()


def test_clip_score_needs_a_text_a_picture(clip):
    network = pretrained("clip", clip)
    for texts in (TEXTS[:2], "abc"):
        with pytest.raises(DataError, match="texts"):
            network.clip_score(pictures(3, 40, 40), texts)


def test_clip_without_its_tokenizer_still_sees(clip, tmp_path):
    for file in clip.iterdir():
        if "token" not in file.name and file.suffix != ".txt" and file.name != "vocab.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    network, whole, items = pretrained("clip", tmp_path), pretrained("clip", clip), pictures(1, 40, 40)
    np.testing.assert_array_equal(network(items), whole(items))
    assert network.digest != whole.digest
    with pytest.raises(RefusedError, match="tokenizer"):
        network.embed_texts(TEXTS)
