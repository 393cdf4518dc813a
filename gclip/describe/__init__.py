"""What a strategy is, as data: read from its class, its fields, its docstring, and from running it.

Nothing here names a strategy: whatever is registered describes itself.
"""

from gclip.describe.docstring import Docstring as Docstring
from gclip.describe.docstring import Reference as Reference
from gclip.describe.docstring import read as read
from gclip.describe.examples import NORMS as NORMS
from gclip.describe.examples import Example as Example
from gclip.describe.examples import example as example
from gclip.describe.examples import number as number
from gclip.describe.memory import Footprint as Footprint
from gclip.describe.memory import footprint as footprint
from gclip.describe.readme import page as page
from gclip.describe.readme import read_costs as read_costs
from gclip.describe.readme import write_costs as write_costs
from gclip.describe.strategies import FAMILIES as FAMILIES
from gclip.describe.strategies import SIDE_WORDS as SIDE_WORDS
from gclip.describe.strategies import Description as Description
from gclip.describe.strategies import Parameter as Parameter
from gclip.describe.strategies import describe as describe
from gclip.describe.strategies import families as families
from gclip.describe.strategies import shown as shown
