import json
import subprocess
import sys
from pathlib import Path

import pytest

import sam_deploy
from sam_deploy.cli.predict import main
from sam_deploy.synthetic import synthetic_images


@pytest.fixture
def photos(tmp_path):
    paths = [tmp_path / f"photo {i}.png" for i in range(2)]
    for path, image in zip(paths, synthetic_images(2), strict=True):
        image.save(path)
    return [str(path) for path in paths]


def test_json_says_what_classify_says(capsys, tiny_bundle, photos):
    asked = [photos[0], photos[1], photos[0]]  # the same image twice is two results
    assert main([str(tiny_bundle), *asked, "--top", "3", "--json"]) == 0
    out, err = capsys.readouterr()
    assert main([str(tiny_bundle), "gone.jpg", "--require", "tensorrt"]) == 3
    assert "has no plan for TensorRT" in capsys.readouterr().err
    expected = sam_deploy.load(tiny_bundle).classify(asked, top=3)
    assert json.loads(out) == [
        {"image": path, "predictions": [prediction._asdict() for prediction in predictions]}
        for path, predictions in zip(asked, expected, strict=True)
    ]
    assert err == ""


def test_a_line_a_class(capsys, tiny_bundle, photos):
    assert main([str(tiny_bundle), *photos]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith(photos[0])
    assert lines[5].startswith(photos[1])
    assert all("%  class " in line for line in lines)
    assert not any(line.endswith(" ") for line in lines)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["{bundle}", "gone.jpg"], "gone.jpg does not exist"),
        (["{bundle}", "gone\udcff.jpg"], r"gone\udcff.jpg does not exist"),
        (["{bundle}", "{photo}", "{bundle}/manifest.json"], "manifest.json cannot be read as an"),
        (["{bundle}", "{photo}", "--top", "0"], "top is 0; expected 1 or more"),
        (["{bundle}", "{photo}", "--top", "x"], "--top: invalid int value: 'x'"),
        (["{bundle}"], "the following arguments are required: image. See sam-predict --help."),
        (["nowhere", "{photo}"], "nowhere is not a bundle: there is no such folder"),
        (["{photo}", "{photo}"], "is not a bundle"),
    ],
)
def test_bad_input(capsys, tiny_bundle, photos, argv, said):
    argv = [part.format(bundle=tiny_bundle, photo=photos[0]) for part in argv]
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert main([*argv, "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer.keys() == {"error", "exit_code"}
    assert said in answer["error"]


def test_a_damaged_bundle(tmp_path, tiny_bundle, photos):
    import shutil

    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (bundle / "model.onnx").write_bytes(b"")
    command = Path(sys.executable).with_name("sam-predict")
    done = subprocess.run([command, bundle, *photos], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "model.onnx: 0 bytes, expected" in done.stderr
    assert "Traceback" not in done.stderr


def test_names_that_stdout_cannot_show(tiny_bundle, photos, tmp_path):
    path = tmp_path / "фото.png"
    Path(photos[0]).rename(path)
    done = subprocess.run(
        [sys.executable, "-m", "sam_deploy.cli.predict", tiny_bundle, path],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u0444\u043e\u0442\u043e.png" in done.stdout
