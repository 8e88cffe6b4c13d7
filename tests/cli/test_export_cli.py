import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from conftest import TINY

import sam_deploy
from sam_deploy.architecture import list_models
from sam_deploy.cli.export import main
from sam_deploy.preprocess import Preprocessing
from sam_deploy.recipe import DEFAULT_TOLERANCES, Recipe, recipes_folder

COMMAND = Path(sys.executable).with_name("sam-export")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """No test writes into the checkout's engines/."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def recipe(tmp_path, tiny_checkpoint):
    """Writes the tiny model's recipe to a file; None leaves a line out."""

    def write(**lines):
        data = {
            "model": "tiny",
            "image_size": [64, 64],
            "architecture": TINY,
            "weights": str(tiny_checkpoint),
            "plans": {"engines": ["none"]},
            **lines,
        }
        path = tmp_path / "recipes" / "tiny.toml"
        path.parent.mkdir(exist_ok=True)
        kept = {key: value for key, value in data.items() if value is not None}
        path.write_text(_toml(kept))
        return str(path)

    return write


def _toml(data):
    """Enough TOML for these recipes: JSON's scalars and lists are TOML's."""
    plain = [f"{k} = {json.dumps(v)}" for k, v in data.items() if not isinstance(v, dict)]
    tables = [
        "\n".join([f"[{k}]", *(f"{key} = {json.dumps(value)}" for key, value in v.items())])
        for k, v in data.items()
        if isinstance(v, dict)
    ]
    return "\n".join([*plain, *tables])


def plan(capsys, *argv):
    """The recipe of a dry run."""
    assert main([*argv, "--dry-run", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    answer = json.loads(out)
    assert answer.keys() == {"bundle", "recipe"}
    assert list(Path.cwd().iterdir()) in ([], [Path.cwd() / "recipes"])
    return answer["bundle"], msgspec.convert(answer["recipe"], Recipe)


def refusal(capsys, *argv):
    """The one message on stderr; as JSON it is the same."""
    before = sorted(Path.cwd().rglob("*"))
    assert main([*argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert main([*argv, "--json"]) == 2
    answer, again = capsys.readouterr()
    message = json.loads(answer)["error"]
    assert json.loads(answer) == {"error": message, "exit_code": 2}
    for text in (err, again):  # behind the stage that was under way, if any
        assert re.sub(r"^load +\n", "", text) == f"error: {message}\n"
    assert sorted(Path.cwd().rglob("*")) == before
    return message


def test_list_models(capsys):
    assert main(["--list-models"]) == 0
    assert set(capsys.readouterr().out.split()) == {*list_models(), "smt_digits"}
    assert main(["--list-models", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {*list_models(), "smt_digits"}


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"sam-deploy {sam_deploy.__version__}\n"


def test_a_flag_alone_is_its_shipped_recipe(capsys):
    by_flag = plan(capsys, "--model", "smt_t", "--fp16")
    by_path = plan(capsys, str(recipes_folder() / "smt_t-fp16-224.toml"))
    assert by_flag == by_path
    assert by_flag[0] == "engines/smt_t-fp16-224"


def test_the_plan_for_people(capsys):
    assert main(["--model", "smt_t", "--image-size", "192x256", "--batch", "8", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "bundle     engines/smt_t-b8-fp32-192x256\n" in out
    assert "random, seeded" in out
    assert "192x256 (height 192, width 256)" in out
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["--model", "smt_s"], "smt_s-fp32-224"),
        (["--model", "smt_l", "--fp16", "--image-size", "384"], "smt_l-fp16-384"),
        (["--model", "smt_t", "--image-size", "192x256"], "smt_t-fp32-192x256"),
        (["--model", "smt_t", "--features", "--fp16"], "smt_t-features-fp16-224"),
        (["--model", "smt_t", "--softmax", "--batch", "8"], "smt_t-softmax-b8-fp32-224"),
        (["--model", "sam", "--image-size", "3x5"], "sam-fp32-3x5"),
        (["--model", "sam"], "sam-fp32-32"),
        (["--model", "smt_b", "--name", "mine.v2"], "mine.v2"),
    ],
)
def test_names(capsys, flags, name):
    assert plan(capsys, *flags, "--out", "there")[0] == f"there/{name}"


def test_sam_flags(capsys):
    shape = plan(capsys, "--model", "sam", "--dim", "64", "--heads", "2", "--expand", "3")[1].sam
    assert (shape.dim, shape.heads, shape.expand) == (64, 2, 3)
    assert plan(capsys, "--model", "sam", "--dim", "64")[1].sam.heads == 4


def test_flags_override_a_recipe(capsys, recipe):
    limits = {"relative_rms": 1e-9, "max_error": 1e-9, "cosine": 1.0, "top1_agreement": 1.0}
    path = recipe(tolerances=limits, batch=4)
    assert plan(capsys, path)[1].tolerances.relative_rms == 1e-9
    made = plan(capsys, path, "--fp16", "--batch", "2", "--image-size", "96", "--softmax")[1]
    assert made.tolerances == DEFAULT_TOLERANCES["fp16"]
    assert (made.batch, made.image_size, made.softmax) == (2, (96, 96), True)
    assert plan(capsys, path, "--fp16", "--io-dtype", "fp16")[1].io_dtype == "fp16"


def test_a_flag_may_supply_what_the_recipe_lacks(capsys, recipe, tiny_model, tmp_path):
    import torch

    averaged = str(tmp_path / "recipes" / "ema.pth")
    path = recipe(weights=None, ema=True)
    assert "give weights" in refusal(capsys, path, "--dry-run")
    assert "no such file or folder: a.pth" in refusal(
        capsys, path, "--weights", "a.pth", "--dry-run"
    )
    torch.save({"model_ema": tiny_model().state_dict()}, averaged)
    assert plan(capsys, path, "--weights", averaged)[1].weights == averaged


def test_a_dry_run_finds_weights_that_do_not_fit(capsys, recipe, tiny_checkpoint):
    plain = str(tiny_checkpoint)
    said = refusal(capsys, recipe(ema=True), "--weights", plain, "--dry-run")
    assert "holds no averaged (EMA) weights" in said
    said = refusal(capsys, "--model", "smt_t", "--weights", plain, "--dry-run")
    assert "does not fit smt_t" in said


def test_a_dry_run_needs_no_torch(tmp_path):
    code = (
        "import sys; sys.modules.update(torch=None, onnx=None, onnxruntime=None)\n"
        "from sam_deploy.cli.export import main\n"
        "print(main(['--model', 'smt_t', '--dry-run']), main(['--model', 'smt_t']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("0 3\n")
    assert "pip install 'sam-deploy[export" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


BAD = [
    ([], "say what to export: --model NAME, --weights CHECKPOINT, or a recipe's path"),
    (["--model", "smt_x"], "unknown model 'smt_x'; known are smt_t"),
    (["--model", "SMT_T"], "Did you mean 'smt_t'?"),
    (["--model", "export/smt_t-fp16-224.toml"], "is a recipe's path: give it without --model"),
    (["smt_t"], "a model's name goes after --model"),
    (["gone.toml"], "no such recipe: gone.toml"),
    (["."], "cannot read the recipe"),
    ([str(recipes_folder() / "smt_t-fp16-224.toml"), "--model", "smt_t"], "got both a recipe"),
    (["--model", "smt_t", "--batch", "0"], "batch: Expected `int` >= 1, got 0"),
    (["--model", "smt_t", "--batch", "two"], "--batch: invalid int value: 'two'"),
    (["--model", "smt_t", "--image-size", "16"], "image size 16 is below 32x32"),
    (["--model", "smt_t", "--image-size", "0"], "image_size[0]: Expected `int` >= 1, got 0"),
    (["--model", "smt_t", "--image-size", "64x"], "'64x' is no size: give 224, or 192x256"),
    (["--model", "smt_t", "--image-size", "1x2x3"], "'1x2x3' is no size"),
    (["--model", "smt_t", "--num-classes", "-1"], "num_classes: Expected `int` >= 0, got -1"),
    (["--model", "smt_t", "--io-dtype", "fp16"], "belong to precision 'fp16'"),
    (["--model", "smt_t", "--features", "--softmax"], "exclude each other"),
    (["--model", "smt_t", "--ema"], "give weights"),
    (["--model", "smt_t", "--dim", "64"], "belong to model 'sam'"),
    (["--model", "sam", "--dim", "10"], "dim 10 is not divisible by heads 4"),
    (["--model", "sam", "--softmax"], "softmax does not apply to 'sam'"),
    (["--model", "smt_t", "--name", "../x"], "'../x' cannot name a bundle"),
    (["--model", "smt_t", "--name", ""], "'' cannot name a bundle"),
    (["--bogus"], "unrecognized arguments: --bogus. See sam-export --help."),
    (["--model"], "--model: expected one argument"),
]


@pytest.mark.parametrize(("argv", "said"), BAD, ids=lambda value: " ".join(value)[:30])
def test_bad_input(capsys, argv, said):
    assert said in refusal(capsys, *argv)


def test_bad_files(capsys, recipe, tmp_path, tiny_checkpoint):
    few, broken = tmp_path / "few.txt", tmp_path / "broken.pth"
    few.write_text("cat\ndog\n")
    broken.write_text("no checkpoint")
    good = recipe()
    own = ["--model", "smt_t", "--weights"]
    for argv, said in [
        ([good, "--class-names", str(few)], "few.txt holds 2 class names, but the model has 10"),
        ([good, "--class-names", "gone.txt"], "gone.txt"),
        ([good, "--num-classes", "9"], "has a head of 10 classes; expected the 9 asked for"),
        ([good, "--ema"], "tiny.safetensors"),
        ([good, "--data", "gone"], "gone does not exist; give a folder of images"),
        ([good, "--data", str(tmp_path / "recipes")], "holds no image"),
        ([good, "--out", str(few)], "is not a folder that can be written to"),
        ([good, "--out", "/proc/sub"], "cannot write to /proc/sub"),
        ([good, "--out", str(tmp_path), "--name", "recipes", "--force"], "is not a bundle"),
        ([*own, "gone.pth"], "gone.pth does not exist"),
        ([*own, str(broken)], "broken.pth"),
        ([*own, str(tiny_checkpoint)], "tiny.safetensors"),
        (["--weights", str(tiny_checkpoint)], "has the shapes of no known model"),
        ([str(broken)], "is not a recipe in TOML"),
        (["--model", "sam", "--data", str(tmp_path)], "no preprocessing to make inputs of images"),
    ]:
        assert said in refusal(capsys, *argv)
    headless = recipe(num_classes=0, weights=None)
    assert "class names need" in refusal(capsys, headless, "--class-names", str(few))


@pytest.mark.export
def test_an_export_says_what_it_made(capsys, recipe):
    path = recipe(precision="fp16")
    assert main([path, "--out", "made"]) == 0
    out, err = capsys.readouterr()
    assert 'load       sam_deploy.load("made/tiny-fp16-64")' in out
    assert "PASSED" in out
    assert [line.split()[0] for line in err.splitlines()][:3] == ["load", "rewrite", "lower"]
    assert "exists. Give --force" in refusal(capsys, path, "--out", "made")
    assert main([path, "--out", "made", "--force", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer.keys() == {"bundle", "manifest"}
    assert answer["manifest"]["name"] == "tiny-fp16-64"
    assert [path.name for path in Path("made").iterdir()] == ["tiny-fp16-64"]


@pytest.mark.export
def test_failing_parity(capsys, recipe):
    limits = {"relative_rms": 1e-12, "max_error": 0.5, "cosine": 0.9, "top1_agreement": 0.5}
    assert main([recipe(tolerances=limits), "--out", "made"]) == 1
    out, said = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in said
    assert "relative RMS" in said
    assert "No bundle was written; the files are in made/tiny-fp32-64" in said
    assert [path.name for path in Path("made").iterdir()] == ["tiny-fp32-64.rejected"]


@pytest.fixture
def seven_classes(tmp_path):
    """An smt_t of 7 classes in the official form, with averaged weights beside."""
    import torch

    from sam_deploy.models import create_model

    torch.manual_seed(0)
    model = create_model("smt_t", num_classes=7)
    averaged = {k: v * 0.5 if v.is_floating_point() else v for k, v in model.state_dict().items()}
    checkpoint = tmp_path / "smt.pth"
    torch.save({"model": model.state_dict(), "model_ema": averaged}, checkpoint)
    return checkpoint


def test_weights_say_which_model_they_are(capsys, seven_classes):
    flags = ["--weights", str(seven_classes), "--image-size", "64", "--out", "made"]
    assert main([*flags, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["model"] == "smt_t"
    assert "has a head of 7 classes" in refusal(capsys, *flags, "--num-classes", "1000")


@pytest.mark.slow
@pytest.mark.export
def test_averaged_weights_and_class_names_are_exported(capsys, tmp_path, seven_classes):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"sort {i}" for i in range(7)))
    flags = ["--weights", str(seven_classes), "--image-size", "64", "--out", str(tmp_path / "made")]
    assert main([*flags, "--ema", "--class-names", str(names), "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)["manifest"]
    assert manifest["weights"]["ema"] is True
    assert manifest["model"]["num_classes"] == 7
    assert manifest["class_names"][6] == "sort 6"


def wait_for(path, process):
    while process.poll() is None and not list(path.glob(".*.partial")):
        time.sleep(0.02)


@pytest.mark.export
@pytest.mark.parametrize(("number", "pause"), [(signal.SIGTERM, 0.0), (signal.SIGINT, 1.5)])
def test_interrupted(recipe, tmp_path, number, pause):
    argv = [COMMAND, recipe(), "--out", "made"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "made", process)
    time.sleep(pause)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert err.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in err
    assert not Path("made").exists()


def test_a_reader_that_has_enough(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    argv = [COMMAND, "--model", "smt_t", "--dry-run"]
    done = subprocess.run(argv, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_installed_command(tmp_path):
    done = subprocess.run([COMMAND, "--model", "smt_x"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown model 'smt_x'")
    assert len(done.stderr.splitlines()) == 1


def test_the_averaged_copy_says_which_model_it_is(tmp_path, capsys):
    import torch

    from sam_deploy.models import SAM

    torch.save({"model": {"x": torch.ones(1)}, "model_ema": SAM(16).state_dict()}, "both.pth")
    assert main(["--weights", "both.pth", "--ema", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["model"] == "sam"


def test_preprocessing_flags_change_the_conventions_of_the_size(capsys):
    plain = Preprocessing.for_size(224, 224)
    assert plan(capsys, "--model", "smt_t")[1].preprocessing is None
    own = ["--model", "smt_t", "--mean", "0.5", "0.4", "0.3", "--std", "1", "1", "2"]
    changed = msgspec.structs.replace(plain, mean=(0.5, 0.4, 0.3), std=(1.0, 1.0, 2.0))
    assert plan(capsys, *own)[1].preprocessing == changed
    straight = msgspec.structs.replace(plain, resize_px=None)
    assert plan(capsys, "--model", "smt_t", "--no-crop")[1].preprocessing == straight


def test_preprocessing_flags_change_the_recipes_lines(capsys, recipe):
    lines = {"size_px": [64, 64], "resize_px": 70, "interpolation": "bilinear", "channels": "BGR"}
    found = plan(capsys, recipe(preprocessing=lines), "--std", "1", "1", "1")[1].preprocessing
    assert (found.resize_px, found.channels, found.std) == (70, "BGR", (1.0, 1.0, 1.0))


def test_preprocessing_flags_that_do_not_fit(capsys):
    for argv, said in [
        (["--model", "a:b", "--no-crop"], "say their --image-size"),
        (["--model", "sam", "--no-crop"], "preprocessing does not apply to 'sam'"),
        (["--model", "smt_t", "--std", "0", "1", "1"], "must be positive"),
        (["--model", "smt_t", "--mean", "0"], "expected 3 arguments"),
    ]:
        assert said in refusal(capsys, *argv)


def test_an_own_network_that_cannot_be_had(capsys, tmp_path, monkeypatch):
    folder = tmp_path / "recipes"  # what a dry run may find here
    folder.mkdir(exist_ok=True)
    (folder / "broken_net.py").write_text("import not_installed_at_all\n")
    (folder / "my_net.py").write_text(
        "from torch import nn\n"
        "def make(): return nn.Conv2d(3, 4, 3)\n"
        "def fails(): return nn.Conv2d(3, 4, 3, groups=2)\n"
        "def other(): return 3\n"
        "value = 3\n"
    )
    monkeypatch.syspath_prepend(folder)
    size = ["--image-size", "32"]
    for argv, said in [
        (["gone_net:make"], "cannot import 'gone_net'"),
        (["broken_net:make"], "No module named 'not_installed_at_all'"),
        (["my_net:mak"], "has no function or class 'mak'. Did you mean 'make'?"),
        (["my_net:value"], "has no function or class 'value'"),
        (["my_net:fails"], "my_net.py:3: ValueError"),
        (["my_net:other"], "returned a int; expected a torch.nn.Module"),
        (["my_net:make"], "gives no example inputs"),
        (["my_net:make", *size, "--weights", "gone.pth"], "gone.pth"),
        (["my_net:make", *size, "--softmax"], "softmax does not apply to my_net:make"),
        ([":make"], "cannot import ''"),
    ]:
        assert said in refusal(capsys, "--model", *argv)
    own = plan(capsys, "--model", "my_net:make", *size, "--fp16")
    assert own[0] == "engines/make-fp16-32"


def test_a_partial_checkpoint_says_of_which_model_and_what_is_missing(capsys, tmp_path):
    from safetensors.torch import save_file

    from sam_deploy.models import create_model

    state = create_model("smt_t").state_dict()
    del state["head.bias"], state["block2.1.attn.proj.weight"]
    save_file(state, tmp_path / "part.safetensors")
    said = refusal(capsys, "--weights", str(tmp_path / "part.safetensors"))
    assert "smt_t" in said
    assert "block2.1.attn.proj.weight" in said


def test_control_characters_do_not_reach_the_terminal(capsys, tmp_path):
    (tmp_path / "recipes").mkdir(exist_ok=True)
    path = tmp_path / "recipes" / "odd.toml"
    path.write_text('"a\\u001b[31m" = 3')
    said = refusal(capsys, str(path))
    assert "unknown key a\\x1b[31m" in said
    assert "\x1b" not in said
