"""GitHub's and GitLab's runners, as far as they run shell: which steps run, where, what is kept."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
OURS = "OWNER/sam-deploy@TAG"


def bash(script, folder, env, *flags):
    """The exit code; what was said goes to the test's output."""
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", *flags, "-c", script],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    print(f"$ {script}\n{done.stdout}{done.stderr}[{done.returncode}]")
    return done.returncode


@dataclass
class Ran:
    """What is left of a job: exit codes by step's name, artifacts by name, outputs by id."""

    codes: dict = field(default_factory=dict)
    artifacts: dict = field(default_factory=dict)
    outputs: dict = field(default_factory=lambda: defaultdict(dict))
    summary: str = ""

    @property
    def failed(self):
        return any(self.codes.values())


class GitHub:
    """As much of GitHub's runner as the workflow and the action ask for."""

    def __init__(self, folder, env):
        self.folder, self.env = folder, env

    def job(self, steps, *, skip=(), before=None):
        """Run a job's steps, but for those in `skip`; `before` has what happens before which."""
        return self._steps(steps, {}, skip, before or {}, {})

    def _steps(self, steps, context, skip, before, env):
        ran = Ran()
        for step in steps:
            name = step.get("name", step.get("uses"))
            steps_so_far = {id_: {"outputs": found} for id_, found in ran.outputs.items()}
            known = {**context, "steps": steps_so_far}
            if name in skip or not _holds(step.get("if", "success()"), ran.failed, known):
                continue
            if name in before:
                before[name]()
            given = {key: _filled(value, known) for key, value in step.get("with", {}).items()}
            if "run" in step:
                ran.codes[name] = self._shell(step, ran, known, env)
            else:
                ran.codes[name] = self._used(step, given, ran)
        return ran

    def _shell(self, step, ran, known, env):
        assert "${{" not in step["run"], "a script must not be made of what others may write"
        kept = {kind: self.folder.parent / f"runner-{kind}" for kind in ("summary", "output")}
        for path in kept.values():
            path.write_text("")
        code = bash(
            step["run"],
            self.folder,
            {
                **self.env,
                **env,
                "GITHUB_STEP_SUMMARY": str(kept["summary"]),
                "GITHUB_OUTPUT": str(kept["output"]),
                **{key: _filled(value, known) for key, value in step.get("env", {}).items()},
            },
            *("-e", "-o", "pipefail"),
        )
        ran.summary += kept["summary"].read_text()
        for line in kept["output"].read_text().splitlines():
            key, _, value = line.partition("=")
            ran.outputs[step["id"]][key] = value
        return code

    def _used(self, step, given, ran):
        if step["uses"] == OURS:
            return self._composite(step, given, ran)
        action = step["uses"].partition("@")[0]
        if action == "actions/upload-artifact":
            path = self.folder / given["path"]
            files = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
            ran.artifacts[given["name"]] = files
            return int(not files and given["if-no-files-found"] == "error")
        assert action in ("actions/checkout", "actions/setup-python")
        return 0

    def _composite(self, step, given, ran):
        declared = ACTION["inputs"]
        assert given.keys() <= declared.keys()
        inputs = {name: given.get(name, spec.get("default")) for name, spec in declared.items()}
        assert None not in inputs.values(), "an input that is required is missing"
        env = {"GITHUB_ACTION_PATH": str(ROOT)}
        inner = self._steps(ACTION["runs"]["steps"], {"inputs": inputs}, (), {}, env)
        ran.summary += inner.summary
        for name, spec in ACTION["outputs"].items():
            known = {id_: {"outputs": found} for id_, found in inner.outputs.items()}
            value = _filled(spec["value"], {"steps": known})
            ran.outputs[step.get("id", "")][name] = value
        return max(inner.codes.values())


def _filled(text, context):
    """`text` with its ${{ }} filled in; those that are unknown fail the test."""

    def value(found):
        value = context
        for part in found[1].split("."):
            value = value[part]
        return str(value)

    return re.sub(r"\$\{\{ ([\w.-]+) \}\}", value, str(text))


def _holds(condition, failed, context):
    """A step's `if`; one that asks for no status runs only after success."""
    asked = condition.removeprefix("${{ ").removesuffix(" }}")
    if asked in ("always()", "!cancelled()"):
        return True
    if failed or asked == "success()":
        return not failed
    name, sign, literal = re.fullmatch(r"([\w.-]+) (==|!=) '(\w*)'", asked).groups()
    try:
        value = _filled(f"${{{{ {name} }}}}", context)
    except KeyError:
        value = ""  # of a step that did not run
    return (value == literal) == (sign == "==")


def gitlab(job, folder, env, *, before_parity):
    """Run a job's script, each line after the last; its exit code and what is kept."""
    env = {**env, "CI_PROJECT_DIR": str(folder)}
    for name, value in job["variables"].items():
        env[name] = value.replace("$CI_PROJECT_DIR", str(folder))
    lines = [*job["before_script"], *job["script"]]
    place = next(i for i, line in enumerate(lines) if line.startswith("sam-parity"))
    assert bash("\n".join(lines[:place]), folder, env, "-e", "-o", "pipefail") == 0
    before_parity()
    code = bash("\n".join(lines[place:]), folder, env, "-e", "-o", "pipefail")
    if code and job["artifacts"]["when"] != "always":
        return code, set(), None
    files = [p for path in job["artifacts"]["paths"] for p in (folder / path).rglob("*")]
    junit = folder / job["artifacts"]["reports"]["junit"]
    return code, {p.name for p in files if p.is_file()}, junit
