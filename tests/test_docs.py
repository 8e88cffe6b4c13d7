"""What the docs show works, and what they link to and tabulate is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")],
    key=lambda page: page.as_posix(),
)
MAIN_JOB = ["--model", "smt_t", "--fp16"]


def blocks(page: Path, language: str, mark: str = "run") -> list[str]:
    return re.findall(rf"<!-- {mark} -->\n```{language}\n(.*?)```", page.read_text(), flags=re.S)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after the main job was run in it, with an image and the recipes."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("export", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    from PIL import Image

    Image.open(ROOT / "tests/golden/image_500x375.png").convert("RGB").save(folder / "cat.jpg")
    run([sys.executable, "-m", "sam_deploy.cli.export", *MAIN_JOB], folder)
    return folder


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.export
def test_the_shown_commands_and_code_run(workplace: Path) -> None:
    shown = 0
    for page in PAGES:
        for block in blocks(page, "python"):
            run([sys.executable, "-c", block], workplace)
            shown += 1
        for block in blocks(page, "sh"):
            run(["bash", "-e", "-o", "pipefail", "-c", block], workplace)
            shown += 1
    assert shown >= 4


@pytest.mark.export
def test_the_server_that_is_shown_answers_what_is_shown(workplace: Path) -> None:
    page = ROOT / "docs/serving.md"
    (command,) = blocks(page, "sh", "run: serve")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    server = subprocess.Popen(
        command.split(), cwd=workplace, env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        assert server.stdout.readline().split() == ["rest", "http://127.0.0.1:8000"]
        shown = [["-c", block] for block in blocks(page, "python", "run: client")]
        for block in shown:
            out = run([sys.executable, *block], workplace)
            assert len(out.splitlines()) == 5
        for block in blocks(page, "sh", "run: client"):
            assert "sam_queued" in run(["bash", "-e", "-o", "pipefail", "-c", block], workplace)
        assert shown
    finally:
        server.terminate()
        assert server.wait(60) == 0
        server.stdout.close()


def test_the_recipe_that_is_shown_is_one() -> None:
    from sam_deploy.recipe import recipe_from_dict

    for page in ("export/README.md", "docs/your-own-network.md", "docs/quantization.md"):
        shown = re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(), flags=re.S)
        assert shown
        for text in shown:
            recipe_from_dict(tomllib.loads(text), page)


def test_links_lead_somewhere() -> None:
    dead = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert not dead


def test_the_generated_tables_are_as_generated() -> None:
    run([sys.executable, str(ROOT / "docs/generate.py"), "--check"], ROOT)


def test_what_the_errors_page_quotes_is_said_somewhere() -> None:
    code = " ".join(path.read_text() for path in (ROOT / "sam_deploy").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # strings that are continued on the next line
    quoted = re.findall(r'^\| "(.*?)" \|', (ROOT / "docs/errors.md").read_text(), flags=re.M)
    assert len(quoted) > 25
    assert [text for text in quoted if text not in code] == []


def test_the_errors_page_names_every_class_and_exit_code() -> None:
    from sam_deploy import errors

    page = (ROOT / "docs/errors.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \|(.*?)\|", page, flags=re.M))
    kinds = [
        k for k in vars(errors).values() if isinstance(k, type) and k.__module__ == errors.__name__
    ]
    for kind in kinds:
        if kind is not errors.SamDeployError:
            assert f"`{kind.__name__}`" in rows[str(kind.exit_code)]
