import contextlib
import threading
from types import SimpleNamespace

import pytest

from sam_deploy.tensorrt_family import Log, log_of, member


class ILogger:
    """As TensorRT's: an enum of severities, and a method to override."""

    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)


@pytest.fixture
def log():
    return Log(SimpleNamespace(ILogger=ILogger))


def test_a_flavour_has_one_logger():
    rtx = member("tensorrt-rtx")
    assert log_of(rtx) is log_of(member("tensorrt-rtx"))


def test_what_is_said_belongs_to_those_who_gather_then(log):
    log.logger.log(ILogger.ERROR, "before")
    with log.gathered() as outer:
        log.logger.log(ILogger.WARNING, "a warning")
        log.logger.log(ILogger.INFO, "of no use")
        with log.gathered() as inner:
            log.logger.log(ILogger.ERROR, "an error")
            log.logger.log(ILogger.INTERNAL_ERROR, "another")
        log.logger.log(ILogger.ERROR, "after")
    log.logger.log(ILogger.ERROR, "too late")
    assert (inner.warnings, inner.errors) == ([], ["an error", "another"])
    assert (outer.warnings, outer.errors) == (["a warning"], ["an error", "another", "after"])


def test_it_gathers_from_all_threads(log):
    with log.gathered() as said:
        thread = threading.Thread(target=log.logger.log, args=(ILogger.ERROR, "from elsewhere"))
        thread.start()
        thread.join()
    assert said.errors == ["from elsewhere"]


def test_an_exception_ends_the_gathering(log):
    with contextlib.suppress(ZeroDivisionError), log.gathered() as said:
        log.logger.log(ILogger.ERROR, "the cause")
        raise ZeroDivisionError
    log.logger.log(ILogger.ERROR, "later")
    assert said.errors == ["the cause"]


def test_reasons_are_the_errors_each_once_without_the_noise(log):
    with log.gathered() as said:
        assert said.reasons() == ["it gave no reason"]
        log.logger.log(ILogger.ERROR, "catchCudaError: no driver")
        assert said.reasons() == ["catchCudaError: no driver"]
        for text in ("one", "two", "one", "three", "four"):
            log.logger.log(ILogger.ERROR, text)
    assert said.reasons() == ["one", "two", "three", "four"]
    assert said.reason == "two; three; four"


def test_one_build_at_a_time_and_runs_beside_it(log):
    started, order = threading.Event(), []

    def second():
        started.set()
        with log.of_one_build():
            order.append("second")

    with log.of_one_build(), log.gathered():
        thread = threading.Thread(target=second)
        thread.start()
        started.wait()
        thread.join(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
