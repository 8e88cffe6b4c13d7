import threading
import time

import pytest

from sam_deploy.errors import InputError, MachineError
from sam_deploy.runtime.pool import Pool


class Thing:
    def __init__(self):
        self.users = 0
        self.most = 0
        self.closed = 0

    def close(self):
        assert not self.users
        self.closed += 1


@pytest.fixture
def made():
    return []


@pytest.fixture
def make(made):
    def make():
        made.append(Thing())
        return made[-1]

    return make


def use(pool, times):
    for _ in range(times):
        with pool.taken() as thing:
            thing.users += 1
            thing.most = max(thing.most, thing.users)
            time.sleep(0.0005)
            thing.users -= 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_threads_never_share_one(make, made, size):
    pool = Pool(make, size)
    threads = [threading.Thread(target=use, args=(pool, 40)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(made) <= size
    assert {thing.most for thing in made} == {1}
    pool.close()
    assert [thing.closed for thing in made] == [1] * len(made)


def test_one_thread_makes_one(make, made):
    pool = Pool(make, 8)
    use(pool, 5)
    assert len(made) == 1


def test_nothing_is_made_before_it_is_needed(make, made):
    Pool(make, 2).close()
    assert made == []


def test_one_that_failed_is_replaced(make, made):
    pool = Pool(make, 1)
    with pytest.raises(MachineError), pool.taken():
        raise MachineError("the GPU")
    with pytest.raises(InputError), pool.taken():
        raise InputError("the user")
    use(pool, 1)
    assert [thing.closed for thing in made] == [1, 0]


def test_a_failure_to_make_leaves_its_place():
    tries = []

    def make():
        tries.append(1)
        if len(tries) == 1:
            raise MachineError("no memory")
        return Thing()

    pool = Pool(make, 1)
    with pytest.raises(MachineError, match="no memory"), pool.taken():
        raise AssertionError
    use(pool, 1)


def test_close_waits_for_calls_and_refuses_those_after_it(make, made):
    pool = Pool(make, 1)
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with pool.taken():
            inside.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    closer = threading.Thread(target=pool.close)
    holder.start()
    assert inside.wait(10)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive()
    assert made[0].closed == 0
    leave.set()
    closer.join(10)
    holder.join(10)
    assert made[0].closed == 1
    with pytest.raises(InputError, match="the engine is closed"), pool.taken():
        raise AssertionError
    pool.close()
    assert made[0].closed == 1


def test_a_pool_of_none():
    with pytest.raises(InputError, match="a pool of 0; expected 1 or more"):
        Pool(Thing, 0)
