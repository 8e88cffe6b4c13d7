import shutil
import signal
import sys
import threading
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

import sam_deploy.bundle
from sam_deploy.bundle import publish, read_bundle, staged
from sam_deploy.bundle.interrupts import interrupts_held

STRUCK = {str(path) for path in Path(sam_deploy.bundle.__file__).parent.glob("*.py")}
STRUCK |= {
    function.__code__.co_filename for function in (contextmanager, shutil.rmtree, Path.mkdir)
}


def interrupt():
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_waits_and_is_not_lost():
    reached = []

    def work():
        with interrupts_held():
            interrupt()
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["the end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_what_waited_comes_through_where_it_may():
    reached = []

    def work():
        with interrupts_held() as hold:
            interrupt()
            try:
                hold.let_through()
                reached.append("never")
            finally:
                hold.held = True
                interrupt()  # a second Ctrl-C does not cut the tidying short
                reached.append("tidied")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["tidied"]


def test_other_handlers_are_called_and_put_back():
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: came.append(number))
    try:
        mine = signal.getsignal(signal.SIGTERM)
        with interrupts_held() as hold:
            signal.raise_signal(signal.SIGTERM)
            assert came == []
            hold.let_through()
            assert came == [signal.SIGTERM]
            signal.raise_signal(signal.SIGTERM)
            assert len(came) == 2
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_there_is_nothing_to_hold(tiny_bundle, tmp_path):
    failures = []

    def work():
        try:
            write(tiny_bundle, tmp_path / "name")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
    read_bundle(tmp_path / "name")


def write(source, target):
    manifest = read_bundle(source)
    with staged(target) as folder:
        for file in manifest.files:
            shutil.copyfile(source / file, folder / file)
        publish(folder, target, manifest, force=True)


def after_call(number):
    """Interrupts after so many calls of C functions: there Python looks for signals."""
    calls = count()

    def profile(frame, event, _arg):
        if event == "c_return" and frame.f_code.co_filename in STRUCK and next(calls) == number:
            sys.setprofile(None)
            interrupt()

    return profile


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # `open`, before `with` has it
@pytest.mark.parametrize("old", [False, True])
def test_an_interrupt_after_any_call_leaves_nothing_behind(tiny_bundle, tmp_path, old):
    source = Path(shutil.copytree(tiny_bundle, tmp_path / "source"))
    out = tmp_path / "out"
    for number in count():
        if old:
            write(source, out / "name")
        sys.setprofile(after_call(number))
        try:
            write(source, out / "name")
            break  # it has no more calls than that
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        with pytest.raises(KeyboardInterrupt):  # the next one is heard
            interrupt()
        if old or out.exists():
            assert [path.name for path in out.iterdir()] == ["name"], number
            read_bundle(out / "name")
        shutil.rmtree(out, ignore_errors=True)
    assert number > 50
