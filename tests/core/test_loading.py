"""Loading without collections of garbage leaves them as they were."""

import gc

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
