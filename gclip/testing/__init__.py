"""The contract that every clipping strategy is held to, for the author of a new one.

::

    from gclip.testing import check_strategy

    def test_contract():
        check_strategy(MyStrategy)

or, on the command line, ``gclip check my_strategies.py``. One test a promise::

    @pytest.mark.parametrize("promise", [p.name for p in gclip.testing.promises()])
    def test_contract(promise):
        check_strategy(MyStrategy, only=[promise])

Nothing has to be said about the strategy: settings come from the fields' own ranges, gradients
are made up, and each promise is a sentence with a small function that looks for numbers which
break it. A class that cannot keep one says why, which is shown in place of the result::

    excused = {"no_waiting": "torch.linalg.svd waits for its result on a GPU"}
"""

from __future__ import annotations

from gclip.testing.contract import ContractBroken as ContractBroken
from gclip.testing.contract import check_strategy as check_strategy
from gclip.testing.contract import examine as examine
from gclip.testing.promises import Promise as Promise
from gclip.testing.promises import Result as Result
from gclip.testing.promises import promises as promises
