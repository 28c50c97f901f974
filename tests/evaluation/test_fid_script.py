"""``fid_score.py`` as a user calls it, on made-up pictures."""

import json

import numpy as np
import pytest

from clipgan.config import load_config
from clipgan.errors import UserError
from clipgan.evaluation.features import statistics_of_files
from clipgan.evaluation.image_files import list_images
from clipgan.evaluation.inception import load_fid_network
from clipgan.evaluation.metrics.frechet import frechet_distance
from clipgan.evaluation.statistics_file import read_statistics
from clipgan.flags import REPOSITORY, run_script


@pytest.fixture
def main(script):
    return script("fid_score.py").main


@pytest.fixture
def flags(run, fid_weights):
    return [*("--cfg", str(run["config"]), "--gpu", "-1"), *("--weights", str(fid_weights), "--dims", "64")]


def test_generated_images_are_scored_against_the_test_split(main, flags, run, fid_weights, capsys, tmp_path):
    copy = tmp_path / "copies" / "result.json"
    main([*flags, "--batch_size", "4", "--output", str(copy)])
    printed = capsys.readouterr()
    path = run["net_g"].with_suffix("") / "valid" / "fid.json"
    report = json.loads(path.read_text())
    assert json.loads(copy.read_text()) == report
    assert printed.out.splitlines()[0] == f"FID {report['value']:.4f}"
    assert f"generated: 6 images, {run['generated']}" in printed.out
    assert f"written to {path}" in printed.out
    assert "without full rank" in printed.err
    assert "this config generates" not in printed.err

    generated, real = report["generated"], report["real"]
    assert (generated["count"], real["count"], real["images"]) == (6, 6, 6)
    assert (real["split"], real["image_size"], real["box_crop"], real["crop_scale"]) == ("test", 32, True, 1.1875)
    assert report["weights"]["source"] == str(fid_weights)
    assert len(report["weights"]["sha256"]) == 64
    assert (report["dims"], report["seed"], report["notice"]) == (64, 100, "")
    assert "299" in report["protocol"]
    assert "torch" in report["versions"]


def test_the_value_is_the_distance_of_generated_and_real_images(main, flags, run, fid_weights):
    main(flags)
    report = json.loads((run["net_g"].with_suffix("") / "valid" / "fid.json").read_text())
    network = load_fid_network(str(fid_weights), 64)
    generated = statistics_of_files(list_images(run["generated"]), network, 6, 0)
    real, _ = read_statistics(report["real"]["statistics"])
    assert report["value"] == pytest.approx(frechet_distance(generated, real), rel=1e-4)


def test_random_weights_are_announced_in_print_and_in_json(main, flags, run, capsys):
    main([*flags, "--weights", "random"])
    report = json.loads((run["net_g"].with_suffix("") / "valid" / "fid.json").read_text())
    assert "only with itself" in report["notice"]
    assert report["weights"]["random"] is True
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("FID ")
    assert "only with itself" in first


def test_two_folders_need_no_config(main, run, fid_weights, tmp_path, capsys):
    folder, output = str(run["generated"]), tmp_path / "fid.json"
    flags = [*("--weights", str(fid_weights)), *("--dims", "64"), *("--gpu", "-1"), *("--output", str(output))]
    main(["--path1", folder, "--path2", folder, *flags])
    assert capsys.readouterr().out.startswith("FID 0.0000\n")
    assert json.loads(output.read_text())["value"] == pytest.approx(0, abs=1e-9)
    assert not (run["generated"].parent / "fid.json").exists()


def test_two_files_of_statistics_need_no_network_and_have_the_closed_form(main, tmp_path, capsys):
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    np.savez(first, mu=np.zeros(2), sigma=np.diag([1.0, 4.0]))
    np.savez(second, mu=np.array([3.0, 0.0]), sigma=np.diag([4.0, 4.0]))
    main(["--path1", str(first), "--path2", str(second), "--gpu", "-1"])
    assert capsys.readouterr().out.startswith("FID 10.0000\n")
    with pytest.raises(UserError, match=r"features of 2 dimensions, .*c\.npz of 3"):
        np.savez(tmp_path / "c.npz", mu=np.zeros(3), sigma=np.eye(3))
        main(["--path1", str(first), "--path2", str(tmp_path / "c.npz"), "--gpu", "-1"])


def test_a_folder_is_scored_against_the_kept_statistics_of_the_split(main, flags, run, fid_weights, tmp_path, capsys):
    main(flags)
    first = json.loads((run["net_g"].with_suffix("") / "valid" / "fid.json").read_text())
    common = [*("--gpu", "-1", "--dims", "64"), *("--weights", str(fid_weights)), "--output", str(tmp_path / "2.json")]
    main(["--path1", str(run["generated"]), "--path2", first["real"]["statistics"], *common])
    second = json.loads((tmp_path / "2.json").read_text())
    main([*flags, "--path1", str(run["generated"]), "--output", str(tmp_path / "3.json")])
    third = json.loads((tmp_path / "3.json").read_text())
    assert second["value"] == pytest.approx(first["value"], rel=1e-9)
    assert third["value"] == pytest.approx(first["value"], rel=1e-9)
    with pytest.raises(UserError, match="other Inception weights"):
        main(["--path1", str(run["generated"]), "--path2", first["real"]["statistics"], *common, "--weights", "random"])
    with pytest.raises(UserError, match="give --dims 64"):
        main(["--path1", str(run["generated"]), "--path2", first["real"]["statistics"], *common, "--dims", "192"])


def test_statistics_made_with_random_weights_are_announced_when_used_again(main, flags, run, capsys):
    main([*flags, "--weights", "random"])
    report = json.loads((run["net_g"].with_suffix("") / "valid" / "fid.json").read_text())
    capsys.readouterr()
    main(["--path1", report["real"]["statistics"], "--path2", report["real"]["statistics"], "--gpu", "-1"])
    assert "FID 0.0000 (random Inception weights: this score compares only with itself" in capsys.readouterr().out


def test_before_any_image_was_generated_the_error_names_the_folder_and_the_command(main, flags, run):
    missing = run["net_g"].with_name("netG_epoch_2.pth")
    with pytest.raises(UserError) as caught:
        main([*flags, "--NET_G", str(missing)])
    message = str(caught.value)
    assert str(missing.with_suffix("") / "valid" / "single") in message
    assert f"`python main.py --cfg {run['config']} --gpu -1 --NET_G {missing}`" in message


def test_for_a_training_config_the_suggested_command_switches_to_sampling(main, flags, run, capsys):
    text = run["config"].read_text().replace("FLAG: False", "FLAG: True").replace("B_VALIDATION: True", "")
    run["config"].write_text(text)
    with pytest.raises(UserError, match=r"--set SEED=1 TRAIN\.FLAG=False B_VALIDATION=True`"):
        main([*flags, "--NET_G", str(run["net_g"].with_name("other.pth")), "--set", "SEED=1"])


def test_a_config_without_a_generator_asks_for_one(main, flags):
    with pytest.raises(UserError, match=r"TRAIN\.NET_G is empty: .*--NET_G"):
        main([*flags, "--set", "TRAIN.NET_G="])


def test_statistics_of_another_crop_are_refused_until_recomputed(main, flags, capsys):
    main(flags)
    other = [*flags, "--set", "DATA.BOX_CROP=False"]
    with pytest.raises(UserError, match=r"made with box_crop = True, .*DATA\.BOX_CROP.* is False.*--recompute"):
        main(other)
    main([*other, "--recompute"])
    main(other)


def test_an_unreadable_image_is_named_on_either_side(main, flags, run):
    generated = list_images(run["generated"])[2]
    generated.write_bytes(generated.read_bytes()[:60])
    with pytest.raises(UserError, match=generated.name):
        main(flags)
    run["photograph"].write_bytes(b"not a picture")
    with pytest.raises(UserError, match=run["photograph"].name):
        main([*flags, "--recompute"])


def test_too_few_images_are_refused_with_both_counts(main, flags, run):
    for path in list_images(run["generated"])[1:]:
        path.unlink()
    with pytest.raises(UserError, match=r"at least 2 images on each side: .*single has 1, .*data has 6"):
        main(flags)


def test_a_number_of_images_that_the_config_does_not_generate_is_a_warning(main, flags, run, capsys):
    list_images(run["generated"])[0].unlink()
    main(flags)
    assert "this config generates 6 images, not the 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "nothing to score"),
        (["--path2", "x"], "--path2 goes with --path1"),
        (["--path1", "x"], "nothing to score"),
        (["--path1", "x", "--data", "toy", "--NET_G", "y.pth"], "give one of the two"),
        (["--path1", "x", "--path2", "y", "--data_dir", "z", "--set", "SEED=1"], "leave out --data_dir, --set"),
        (["--path1", "no-folder", "--path2", "x"], "no folder of images at no-folder"),
        (["--cfg", "no.yml"], "no config file at no.yml"),
        (["--data", "bird", "--path1", "x", "--path2", "y"], "leave out --data"),
        (["--data", "coco", "--set", "TRAIN.BATCHSIZE=3"], "did you mean TRAIN.BATCH_SIZE?"),
        (["--data", "coco", "--workers", "-1"], "--workers must be at least 0"),
        (["--data", "coco", "--batch_size", "0"], "--batch_size must be at least 1"),
    ],
)
def test_wrong_flags_give_a_one_line_error_and_exit_status_2(main, capsys, extra, message):
    with pytest.raises(SystemExit) as caught:
        run_script(lambda: main([*extra, "--gpu", "-1"]))
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert "Traceback" not in error


@pytest.mark.parametrize("name", ["fid_score.py", "inception_score.py"])
@pytest.mark.parametrize("data", ["bird", "coco"])
def test_the_documented_commands_find_their_config_from_any_folder(script, tmp_path, monkeypatch, name, data):
    monkeypatch.chdir(tmp_path)
    config = load_config(REPOSITORY / f"cfg/eval_clip_{data}.yml")
    with pytest.raises(UserError) as caught:
        dims = ["--dims", "2048"] if name == "fid_score.py" else []
        script(name).main(["--data", data, *dims, "--batch_size", "32"])
    assert config.TRAIN.NET_G.removesuffix(".pth") in str(caught.value)
    assert f"python main.py --cfg cfg/eval_clip_{data}.yml`" in str(caught.value)
