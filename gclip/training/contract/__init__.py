"""The contracts that problems and models are held to, for the author of a new one.

::

    from gclip.training import check_model, check_problem

    def test_problem():
        check_problem("adding")

    def test_model():
        check_model("mynet")

or, on the command line, ``gclip check my_problem.py``. What `gclip.testing` is to strategies.
"""

from gclip.training.contract.checking import check_model as check_model
from gclip.training.contract.checking import check_problem as check_problem
from gclip.training.contract.checking import examine_model as examine_model
from gclip.training.contract.checking import examine_problem as examine_problem
from gclip.training.contract.checking import model_promises as model_promises
from gclip.training.contract.checking import problem_promises as problem_promises
