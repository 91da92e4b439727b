"""Loading leaves collections of garbage and interrupts as they were."""

import gc
import signal
import threading

import pytest

from langsamp.core.loading import loading


def test_garbage_is_collected_again_after_loading_whatever_happens():
    with pytest.raises(ImportError), loading():
        assert not gc.isenabled()
        with loading():
            pass
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


@pytest.fixture
def interruptible():
    """In a background job interrupts are ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_until_all_is_loaded_and_a_second_one_does_not(interruptible):
    done = []
    with pytest.raises(KeyboardInterrupt), loading():
        with loading():
            signal.raise_signal(signal.SIGINT)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]
    with pytest.raises(KeyboardInterrupt), loading():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("not reached")
    assert done == ["inner", "outer"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_load_too():
    found = []

    def load():
        with loading():
            found.append(gc.isenabled())

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert found == [False]
    assert gc.isenabled()
