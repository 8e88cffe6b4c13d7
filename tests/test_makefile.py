import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "Makefile").read_text(encoding="utf-8")
RULES = re.findall(r"^([a-z][a-z-]*):(?!=)", TEXT, re.MULTILINE)


def make(*argv):
    # As a user's shell starts it, also where `make test` runs this.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *argv], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )


def test_phony_targets_and_rules_are_the_same():
    phony = re.search(r"^\.PHONY: (.*)$", TEXT, re.MULTILINE).group(1).split()
    assert phony == list(dict.fromkeys(phony))
    assert set(phony) == set(RULES)


def test_make_alone_prints_every_target_with_a_description():
    done = make()
    printed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (0, "")
    assert set(printed) == set(RULES)


@pytest.mark.parametrize("target", [rule for rule in RULES if rule != "help"])
def test_what_a_target_runs_is_there(target):
    done = make("--dry-run", "--always-make", "PYTHON=python3", target)
    assert done.returncode == 0, done.stderr
    for script in re.findall(r"\S+\.py\b", done.stdout):
        assert (ROOT / script).is_file(), f"make {target} runs {script}"


def test_the_main_job_is_the_documented_command():
    last = make("-n", "export").stdout.splitlines()[-1]
    assert last.strip() == ".venv/bin/sam-export --model smt_t --fp16"


def test_ci_runs_what_everybody_runs():
    run = ROOT / ".ci" / "run"
    assert run.stat().st_mode & 0o111
    assert "make test" in run.read_text().splitlines()
    assert '-m "not slow"' in make("-n", "test").stdout
