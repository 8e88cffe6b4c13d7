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


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"<!-- run -->\n```{language}\n(.*?)```", page.read_text(), flags=re.S)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after the main job was run in it, with an image and the recipes."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copytree(ROOT / "export", folder / "export")
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


def test_the_recipe_that_is_shown_is_one() -> None:
    from sam_deploy.recipe import recipe_from_dict

    shown = re.findall(r"```toml\n(.*?)```", (ROOT / "export/README.md").read_text(), flags=re.S)
    assert shown
    for text in shown:
        recipe_from_dict(tomllib.loads(text), "export/README.md")


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
