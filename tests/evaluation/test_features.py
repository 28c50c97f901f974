"""Features of folders, the test split's cached statistics, and a whole FID that equals pytorch-fid's."""

import json
from pathlib import Path

import numpy as np
import pytest
import pytorch_fid.fid_score
import pytorch_fid.inception
import torch

from clipgan.config import Config, load_config
from clipgan.data.images import crop_to_box, load_image, prepare_image, to_tensor
from clipgan.errors import UserError
from clipgan.evaluation.features import probabilities_of_files, statistics_of_files, statistics_of_split
from clipgan.evaluation.image_files import list_images
from clipgan.evaluation.inception import FidNetwork, Provenance, load_fid_network, load_score_network
from clipgan.evaluation.metrics.frechet import RunningStatistics, Statistics, frechet_distance
from clipgan.evaluation.real_images import Split
from clipgan.evaluation.statistics_file import read_statistics, write_statistics


@pytest.fixture(scope="module")
def network(fid_weights):
    return load_fid_network(str(fid_weights), 64)


@pytest.fixture
def folder(tmp_path, pictures):
    """7 pictures of several formats, sizes and folder depths."""
    names = ["b.png", "a.JPG", "sub/c.jpeg", "sub/deep/d.webp", "e.bmp", "sub/f.png", "g.png"]
    for number, name in enumerate(names):
        pictures(tmp_path / "pictures" / name, number, (30 + 10 * (number % 3), 40))
    return tmp_path / "pictures"


def same(a: Statistics, b: Statistics) -> None:
    assert a.count == b.count
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(a.covariance, b.covariance, rtol=1e-4, atol=1e-6)


def of_tensors(images: list[torch.Tensor], network: FidNetwork) -> Statistics:
    statistics = RunningStatistics(network.dims)
    for image in images:
        statistics.update(network(image[None]))
    return statistics.statistics()


def of_split(config: Config, network: FidNetwork, recompute: bool = False) -> tuple[Statistics, Path]:
    return statistics_of_split(Split.of(config), network, 4, 0, recompute)


def test_images_are_found_at_all_depths_sorted_and_nothing_else(folder, pictures):
    for name in (".hidden.png", ".thumbnails/h.png", "sub/.i.png.tmp"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    found = [path.relative_to(folder).as_posix() for path in list_images(folder)]
    assert found == ["a.JPG", "b.png", "e.bmp", "g.png", "sub/c.jpeg", "sub/deep/d.webp", "sub/f.png"]
    with pytest.raises(UserError, match="nowhere"):
        list_images(folder / "nowhere")


def test_batch_size_and_workers_do_not_change_the_statistics(folder, network):
    paths = list_images(folder)
    whole = statistics_of_files(paths, network, 7, 0)
    for batch_size, workers in ((1, 0), (3, 0), (3, 2), (100, 1)):
        same(statistics_of_files(paths, network, batch_size, workers), whole)


def test_files_and_tensors_have_the_same_statistics(folder, network):
    paths = list_images(folder)
    tensors = [to_tensor(load_image(path)) for path in paths]
    same(of_tensors(tensors, network), statistics_of_files(paths, network, 4, 0))


def test_probabilities_keep_the_order_of_the_files(folder, score_weights):
    network, paths = load_score_network(str(score_weights)), list_images(folder)
    probabilities = probabilities_of_files(paths, network, 3, 2)
    assert probabilities.shape == (7, 7)
    last = network(to_tensor(load_image(paths[-1]))[None])
    np.testing.assert_allclose(probabilities[-1:], last.numpy(), atol=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_named(folder, network, workers):
    broken = folder / "sub" / "broken.png"
    broken.write_bytes(b"not a picture")
    with pytest.raises(UserError) as caught:
        statistics_of_files(list_images(folder), network, 2, workers)
    assert str(broken) in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(("dims", "count"), [(64, 12), (768, 4)])
def test_fid_of_two_folders_equals_pytorch_fids(monkeypatch, tmp_path, pictures, fid_weights, dims, count):
    for name, seed in (("first", 0), ("second", 500)):
        for number in range(count):
            pictures(tmp_path / name / f"{number}.png", seed + number, (36, 28))
    state = torch.load(fid_weights, weights_only=True)
    monkeypatch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *arguments, **options: state)
    folders = [str(tmp_path / name) for name in ("first", "second")]
    peer = pytorch_fid.fid_score.calculate_fid_given_paths(folders, 4, "cpu", dims, num_workers=0)

    network = load_fid_network(str(fid_weights), dims)
    a, b = (statistics_of_files(list_images(path), network, 3, 0) for path in folders)
    assert peer > 1e-3
    assert frechet_distance(a, b) == pytest.approx(peer, rel=1e-3)


def test_real_images_are_prepared_as_in_training_and_their_statistics_kept(run, network, monkeypatch):
    config = load_config(run["config"])
    first, path = of_split(config, network)
    expected = []
    for example in Split.of(config).examples:
        picture = crop_to_box(load_image(example.image), example.box)
        expected.append(prepare_image(picture, None, [32], crop_scale=76 / 64)[-1])
    same(first, of_tensors(expected, network))

    assert path.parent == Path(config.OUTPUT_DIR) / "fid_statistics"
    assert not (run["data"] / "fid_statistics").exists()
    monkeypatch.setattr(network, "forward", None)
    again, _ = of_split(config, network)
    np.testing.assert_array_equal(again.covariance, first.covariance)
    assert again.count == 6


@pytest.mark.parametrize(
    ("override", "field"), [("DATA.BOX_CROP=False", "DATA.BOX_CROP"), ("DATA.CROP_SCALE=1.5", "DATA.CROP_SCALE")]
)
def test_statistics_of_other_settings_are_refused_until_computed_again(run, network, override, field):
    _, path = of_split(load_config(run["config"]), network)
    other = load_config(run["config"], [override])
    with pytest.raises(UserError, match=f"{field}.*--recompute") as caught:
        of_split(other, network)
    assert str(path) in str(caught.value)
    of_split(other, network, recompute=True)
    of_split(other, network)


def test_statistics_of_images_that_were_replaced_are_refused(run, network, pictures):
    config = load_config(run["config"])
    of_split(config, network)
    pictures(run["photograph"], 77, (60, 70))
    with pytest.raises(UserError, match="content of DATA_DIR"):
        of_split(config, network)
    run["photograph"].unlink()
    with pytest.raises(UserError, match=run["photograph"].name):
        of_split(config, network)


def test_other_weights_widths_and_image_sizes_have_files_of_their_own(run, network, fid_weights):
    config = load_config(run["config"])
    other_weights = load_fid_network(str(fid_weights), 64)
    other_weights.provenance = Provenance("elsewhere", "0" * 64)
    paths = {
        of_split(config, network)[1],
        of_split(config, load_fid_network(str(fid_weights), 192))[1],
        of_split(config, other_weights)[1],
        of_split(load_config(run["config"], ["TREE.BRANCH_NUM=1"]), network)[1],
    }
    assert len(paths) == 4


def test_written_statistics_are_read_back_here_and_by_pytorch_fid(tmp_path):
    statistics = Statistics(np.arange(3.0), np.diag([1.0, 2.0, 3.0]), 9)
    path = tmp_path / "new" / "statistics.npz"
    write_statistics(path, statistics, {"dims": 3})
    found, provenance = read_statistics(path)
    assert (found.count, provenance) == (9, {"dims": 3})
    np.testing.assert_array_equal(found.covariance, statistics.covariance)
    mean, covariance = pytorch_fid.fid_score.compute_statistics_of_path(str(path), None, 1, 3, "cpu")
    np.testing.assert_array_equal(mean, statistics.mean)
    np.testing.assert_array_equal(covariance, statistics.covariance)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "statistics.npz"
    write_statistics(path, Statistics(np.zeros(2), np.eye(2), 5), {})
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        write_statistics(path, Statistics(np.ones(2), np.eye(2), 6), {})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_files_that_hold_no_statistics_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no statistics file at .*none\.npz"):
        read_statistics(tmp_path / "none.npz")
    text, other, pickled = (tmp_path / name for name in ("text.npz", "other.npz", "pickled.npz"))
    text.write_text("text")
    np.savez(other, a=np.zeros(3))
    np.savez(pickled, mu=np.array([{"a": 1}], dtype=object), sigma=np.eye(1))
    square = tmp_path / "shape.npz"
    np.savez(square, mu=np.zeros(3), sigma=np.eye(2))
    half = tmp_path / "half.npz"
    half.write_bytes(other.read_bytes()[:-30])
    listed = tmp_path / "listed.npz"
    np.savez(listed, mu=np.zeros(2), sigma=np.eye(2), provenance=np.array(json.dumps([1])))
    for path in (text, other, pickled, square, half, listed):
        with pytest.raises(UserError, match=path.name):
            read_statistics(path)
