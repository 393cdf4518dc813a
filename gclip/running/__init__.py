"""Many runs at a time: pools of worker processes, comparisons, and resuming both."""

from gclip.running.compare import choose_baseline as choose_baseline
from gclip.running.compare import compare as compare
from gclip.running.comparison import Comparison as Comparison
from gclip.running.events import Event as Event
from gclip.running.events import Listener as Listener
from gclip.running.machine import cores as cores
from gclip.running.machine import workers_for as workers_for
from gclip.running.many import open_pool as open_pool
from gclip.running.many import run_all as run_all
from gclip.running.pool import InProcess as InProcess
from gclip.running.pool import Job as Job
from gclip.running.pool import Pool as Pool
from gclip.running.pool import Processes as Processes
from gclip.running.pool import WorkersFailed as WorkersFailed
