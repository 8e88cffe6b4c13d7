"""The pytest plugin: `pytest --sam-bundle PATH` gives tests the bundle as `sam_bundle`.

It is loaded into every pytest run of an environment that has the package, and so imports nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sam_deploy.runtime import Engine

_OPTION = "--sam-bundle"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option; given several times, every test that takes a bundle runs on each."""
    group = parser.getgroup("sam-deploy")
    group.addoption(
        _OPTION,
        action="append",
        default=[],
        metavar="PATH",
        help="a bundle for tests that take `sam_bundle` or `sam_engine`; repeatable",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each bundle."""
    if "sam_bundle" in metafunc.fixturenames:
        paths = [Path(given) for given in metafunc.config.getoption(_OPTION)]
        if paths:
            names = [path.name or str(path) for path in paths]
            metafunc.parametrize("sam_bundle", paths, ids=names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def sam_bundle(request: pytest.FixtureRequest) -> Path:
    """The folder given with --sam-bundle. Without one the test fails: a check that did not run is
    none.
    """
    path: Path | None = getattr(request, "param", None)
    if path is None:
        pytest.fail(f"no bundle: give {_OPTION} PATH", pytrace=False)
    if not path.is_dir():
        pytest.fail(f"{_OPTION} {path}: there is no such folder", pytrace=False)
    return path


@pytest.fixture(scope="session")
def sam_engine(sam_bundle: Path) -> Iterator[Engine]:
    """The bundle, loaded as a service loads it; closed when the tests are done."""
    from sam_deploy.runtime import load

    with load(sam_bundle) as engine:
        yield engine
