"""What is shipped: the wheel, and that it works where there is no checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.export


def pip(*argv):
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    command = [sys.executable, "-m", "pip", *argv, *quiet]
    subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", str(ROOT), "--no-build-isolation", "-w", str(folder))
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_its_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {
        "sam_deploy",
        f"sam_deploy-{wheel.name.split('-')[1]}.dist-info",
    }
    recipes = {path.name for path in (ROOT / "export").glob("*.toml")}
    assert {f"sam_deploy/recipes/{name}" for name in recipes} <= set(names)
    data = {"data/imagenet1k.txt", "py.typed", "serving/page.html"}
    assert {f"sam_deploy/{name}" for name in data} <= set(names)
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sam_deploy").rglob("*.py")}
    assert sources <= set(names)


def test_it_works_without_a_checkout_and_without_torch(wheel, tmp_path):
    pip("install", str(wheel), "--target", str(tmp_path / "site"))
    code = (
        "import sys; sys.modules.update(torch=None, onnx=None, onnxruntime=None)\n"
        "import sam_deploy.recipe, sam_deploy.class_names, runpy\n"
        "print(sam_deploy.recipe.recipes_folder(), len(sam_deploy.class_names.imagenet_names()))\n"
        "sys.argv = ['sam-export', '--dry-run', '--model', 'smt_t', '--fp16']\n"
        "runpy.run_module('sam_deploy.cli.export', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path}/site/sam_deploy/recipes 1000\n")
    assert "engines/smt_t-fp16-224" in done.stdout
