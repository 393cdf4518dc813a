"""What a strategy, a problem or a model is, as data: read from its code, and from running it.

Nothing here names one of them: whatever is registered describes itself.
"""

from gclip.describe.costs import costs_file as costs_file
from gclip.describe.costs import read_costs as read_costs
from gclip.describe.costs import write_costs as write_costs
from gclip.describe.examples import NORMS as NORMS
from gclip.describe.examples import Example as Example
from gclip.describe.examples import example as example
from gclip.describe.examples import number as number
from gclip.describe.memory import Footprint as Footprint
from gclip.describe.memory import footprint as footprint
from gclip.describe.models import ModelDescription as ModelDescription
from gclip.describe.models import describe_model as describe_model
from gclip.describe.parameters import Parameter as Parameter
from gclip.describe.parameters import format_value as format_value
from gclip.describe.problems import ProblemDescription as ProblemDescription
from gclip.describe.problems import describe_problem as describe_problem
from gclip.describe.strategies import FAMILIES as FAMILIES
from gclip.describe.strategies import SIDE_WORDS as SIDE_WORDS
from gclip.describe.strategies import Description as Description
from gclip.describe.strategies import describe as describe
from gclip.describe.strategies import families as families
