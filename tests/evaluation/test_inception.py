"""The networks equal pytorch-fid's and torchvision's with the same weights; weights files and their errors."""

import hashlib
import urllib.error
from pathlib import Path

import pytest
import pytorch_fid.inception
import torch
from torchvision.models.inception import Inception3, Inception_V3_Weights

from clipgan.errors import UserError
from clipgan.evaluation import inception
from clipgan.evaluation.inception import FEATURE_DIMS, SIDE, load_fid_network, load_score_network


def images(count: int = 3, side: int = 64, seed: int = 0) -> torch.Tensor:
    """Images in [−1, 1] that differ much from each other."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.rand(count, 3, 5, 5, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(blocks, size=side, mode="nearest")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache of downloads, and no connection."""

    def refuse(*arguments, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


def test_features_equal_pytorch_fids_at_all_widths(monkeypatch, fid_weights):
    state = torch.load(fid_weights, weights_only=True)
    monkeypatch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *arguments, **options: state)
    peer = pytorch_fid.inception.InceptionV3([0, 1, 2, 3]).eval().double()
    pictures = images(2)
    with torch.no_grad():
        outputs = peer((pictures.double() + 1) / 2)
    for dims, output in zip(FEATURE_DIMS, outputs, strict=True):
        expected = output.mean(dim=(2, 3))
        network = load_fid_network(str(fid_weights), dims)
        single, double = network(pictures), network.double()(pictures.double())
        assert single.shape == (2, dims)
        assert single.dtype == torch.float32
        assert expected.std(dim=0).mean() > 0.05, "the weights tell the images apart"
        torch.testing.assert_close(double, expected, atol=1e-4, rtol=0)
        # Rounding alone is large here: the memory format changes pytorch-fid's own features by 0.6e-4.
        torch.testing.assert_close(single.double(), expected, atol=3e-4, rtol=0)


def test_probabilities_equal_torchvisions_with_its_own_preprocessing(tmp_path, score_weights):
    peer = Inception3(num_classes=7, aux_logits=True, transform_input=True, init_weights=False).eval()
    missing, unexpected = peer.load_state_dict(torch.load(score_weights, weights_only=True), strict=False)
    assert not unexpected
    assert all(name.startswith("AuxLogits.") for name in missing)
    path = tmp_path / "fine-tuned.pth"
    torch.save({"state_dict": peer.state_dict()}, path)

    pictures = images(4, SIDE)
    normalise = Inception_V3_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalise.mean, normalise.std))
    with torch.no_grad():
        expected = peer(((pictures + 1) / 2 - mean) / std).softmax(dim=1).double()
    network = load_score_network(str(path))
    assert network.classes == 7
    assert expected.std(dim=0).mean() > 0.02, "the weights tell the images apart"
    torch.testing.assert_close(network(pictures), expected, atol=1e-4, rtol=0)


def test_batch_size_does_not_change_a_result(fid_weights):
    network, pictures = load_fid_network(str(fid_weights), 192), images(5)
    alone = torch.cat([network(picture[None]) for picture in pictures])
    torch.testing.assert_close(network(pictures), alone, atol=1e-5, rtol=1e-5)


def test_the_callers_precision_does_not_change_a_result(fid_weights):
    network, pictures = load_fid_network(str(fid_weights), 64), images()
    with torch.autocast("cpu", torch.bfloat16):
        inside = network(pictures)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, network(pictures), atol=0, rtol=0)


def test_provenance_is_the_file_and_its_hash(fid_weights):
    provenance = load_fid_network(str(fid_weights), 64).provenance
    assert provenance.source == str(fid_weights)
    assert provenance.sha256 == hashlib.sha256(fid_weights.read_bytes()).hexdigest()
    assert provenance.notice == ""


def test_random_weights_are_the_same_each_time_whatever_the_global_seed(draw_random_weights, fid_weights):
    torch.manual_seed(1234)
    state, digest = draw_random_weights(inception.fid_inception())
    expected = torch.load(fid_weights, weights_only=True)
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-4, rtol=1e-4, msg=name)
    assert digest == load_fid_network("random", 64).provenance.sha256


def test_random_weights_have_a_notice():
    provenance = load_score_network("random").provenance
    assert provenance.random
    assert "only with itself" in provenance.notice


def test_random_probabilities_tell_images_apart(score_weights):
    probabilities = load_score_network(str(score_weights))(images(8))
    assert probabilities.dtype == torch.float64
    assert probabilities.sum(dim=1).tolist() == pytest.approx([1] * 8, abs=1e-12)
    assert len(probabilities.argmax(dim=1).unique()) > 1
    assert probabilities.max(dim=1).values.mean() < 0.9, "not saturated"


@pytest.mark.parametrize("load", [load_fid_network, load_score_network])
def test_without_a_connection_the_error_says_where_the_file_belongs(no_network, load):
    with pytest.raises(UserError) as caught:
        load("published")
    message = str(caught.value)
    url = inception.FID_URL if load is load_fid_network else inception.SCORE_URL
    assert url in message
    assert str(no_network / url.rpartition("/")[2]) in message
    assert "--weights FILE" in message
    assert "--weights random" in message
    assert "no route to host" in message
    assert "\n" not in message


def test_a_published_file_in_the_cache_is_used_and_its_hash_checked(monkeypatch, no_network, fid_weights):
    content = fid_weights.read_bytes()
    name = f"fid-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setattr(inception, "FID_URL", f"https://example.org/{name}")
    no_network.mkdir()
    (no_network / name).write_bytes(content)
    assert load_fid_network("published", 64).provenance.source == f"https://example.org/{name}"
    (no_network / name).write_bytes(content[:-1])
    with pytest.raises(UserError, match=f"{name} is damaged"):
        load_fid_network("published", 64)


def test_files_that_are_not_the_networks_weights_are_refused(tmp_path, fid_weights, score_weights):
    with pytest.raises(UserError, match=r"nothing\.pth.*published, random"):
        load_fid_network(str(tmp_path / "nothing.pth"))
    garbage = tmp_path / "garbage.pth"
    garbage.write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"garbage\.pth: is damaged or no checkpoint.*Inception"):
        load_fid_network(str(garbage))
    listing = tmp_path / "list.pth"
    torch.save([1, 2], listing)
    with pytest.raises(UserError, match="holds a list"):
        load_score_network(str(listing))
    with pytest.raises(UserError, match=r"does not fit the FID.*fc\.weight as \[7, 2048\], not \[1008, 2048\]"):
        load_fid_network(str(score_weights))
    state = torch.load(score_weights, weights_only=True)
    part = tmp_path / "part.pth"
    torch.save({name: tensor for name, tensor in state.items() if name != "Mixed_6a.branch3x3.conv.weight"}, part)
    with pytest.raises(UserError, match=r"it lacks Mixed_6a\.branch3x3\.conv\.weight"):
        load_score_network(str(part))
    more = tmp_path / "more.pth"
    torch.save({**state, "head.weight": torch.zeros(1)}, more)
    with pytest.raises(UserError, match=r"head\.weight, which is unknown"):
        load_score_network(str(more))


def test_a_width_that_the_network_does_not_have_is_refused(fid_weights):
    with pytest.raises(UserError, match="64, 192, 768, 2048, not 100"):
        load_fid_network(str(fid_weights), 100)


@pytest.mark.parametrize(
    ("nesting", "prefix"),
    [("state_dict", "module."), ("model_state_dict", "module._orig_mod."), ("model", ""), ("state_dict", "model.")],
)
def test_weights_are_found_in_what_training_programs_keep(tmp_path, score_weights, nesting, prefix):
    state = torch.load(score_weights, weights_only=True)
    path = tmp_path / "nested.pth"
    torch.save({nesting: {prefix + name: value for name, value in state.items()}, "epoch": 3}, path)
    pictures = images(2)
    torch.testing.assert_close(
        load_score_network(str(path))(pictures), load_score_network(str(score_weights))(pictures), atol=0, rtol=0
    )
    path.unlink()


def test_counts_of_batches_are_not_needed_and_half_precision_is_widened(tmp_path, fid_weights):
    state = torch.load(fid_weights, weights_only=True)
    bare = {name: value.half() for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(bare, tmp_path / "bare.pth", _use_new_zipfile_serialization=False)
    network = load_fid_network(str(tmp_path / "bare.pth"), 64)
    expected = load_fid_network(str(fid_weights), 64)(images())
    assert network(images()).dtype == torch.float32
    torch.testing.assert_close(network(images()), expected, atol=0.05, rtol=0.05)
    (tmp_path / "bare.pth").unlink()


def test_the_fid_s_weights_are_refused_for_the_inception_score(tmp_path, fid_weights):
    with pytest.raises(UserError, match=r"fid\.pth has 1008 classes, .*pytorch-fid.*another network.*published"):
        load_score_network(str(fid_weights))
    wrapped = tmp_path / "wrapped.pth"
    state = torch.load(fid_weights, weights_only=True)
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, wrapped)
    with pytest.raises(UserError, match=r"wrapped\.pth has 1008 classes"):
        load_score_network(str(wrapped))
    wrapped.unlink()


@pytest.mark.parametrize(
    ("load", "name", "spoil", "message"),
    [
        ("score", "fc.bias", lambda value: value.fill_(float("nan")), r"fc\.bias of torchvision.* NaN"),
        ("fid", "Mixed_5b.branch1x1.conv.weight", lambda value: value.index_fill_(0, torch.tensor([3]), float("inf")),
         r"Mixed_5b\.branch1x1\.conv\.weight of the FID.* infinities"),
        ("fid", "Mixed_5b.branch1x1.bn.running_var", torch.Tensor.neg, "variances below 0"),
        ("fid", "fc.bias", lambda value: value.double() + 1e300, r"fc\.bias.*infinities"),
        ("fid", "fc.bias", lambda value: value.int(), r"fc\.bias in torch\.int32, not torch\.float32"),
        ("fid", "fc.bias", lambda value: value.to(torch.complex64), "a storage is described wrongly"),
        ("fid", "fc.bias", lambda value: value.to_sparse(), "bad.pth"),
        ("fid", "fc.bias", lambda value: [1.0] * 1008, r"fc\.bias must be a tensor"),
        ("score", "fc.bias", lambda value: value[:1], "has 1 classes: the score needs 2 to 100000"),
        ("score", "fc.bias", lambda value: value[0], r"fc\.bias as \[\]"),
        ("score", "fc.bias", lambda value: value.new_zeros(200_000), "has 200000 classes"),
        ("score", "fc.bias", lambda value: value[:5], r"fc\.weight as \[7, 2048\], not \[5, 2048\]"),
    ],
)  # fmt: skip
def test_weights_that_are_not_finite_or_not_the_networks_are_named(
    tmp_path, fid_weights, score_weights, load, name, spoil, message
):
    state = torch.load(fid_weights if load == "fid" else score_weights, weights_only=True)
    state[name] = spoil(state[name])
    path = tmp_path / "bad.pth"
    torch.save(state, path)
    with pytest.raises(UserError, match=message) as caught:
        (load_fid_network if load == "fid" else load_score_network)(str(path))
    assert str(path) in str(caught.value) and len(str(caught.value)) <= 480
    path.unlink()


def test_a_web_page_a_model_and_empty_weights_are_told_apart(tmp_path, score_weights):
    page, model, empty = (tmp_path / f"{name}.pth" for name in ("page", "model", "empty"))
    page.write_text("<html><body>Sign in</body></html>")
    torch.save(torch.nn.Linear(2, 2), model)
    torch.save({}, empty)
    for path, message in ((page, "is a web page"), (model, "holds a model or another object"), (empty, "holds a dict")):
        for load in (load_fid_network, load_score_network):
            with pytest.raises(UserError, match=rf"{path.name}: {message}"):
                load(str(path))
    with pytest.raises(UserError, match="is a folder"):
        load_fid_network(str(tmp_path))
