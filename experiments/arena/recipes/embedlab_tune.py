"""embedlab's `tune`: a ladder of recipes in a time budget, chosen on dev.

python embedlab_tune.py DATA MODEL OUTPUT --minutes 5
"""

import tempfile
import time

from embedlab import load_model
from embedlab.arena import script
from embedlab.models.save import save_model
from embedlab.tuning import recipes
from embedlab.tuning.choice import choose
from embedlab.tuning.clock import Clock
from embedlab.tuning.limits import Limits
from embedlab.tuning.params import TuneParams
from embedlab.tuning.workbench import Workbench

job = script.job(__doc__)
clock = Clock(job.minutes, now=time.process_time, start=0.0)  # the CPU time of this process, imports included
params = TuneParams.checked(job.defaults_of("12_tune") | {"minutes": job.minutes})
with tempfile.TemporaryDirectory() as scratch:
    bench = Workbench(job.dataset(), load_model(job.model), params, scratch, clock, with_test=False)
    recipes.add_base(bench)
    for recipe in params.recipes_to_try:
        recipes.run_recipe(recipe, bench)
    choice = choose(list(bench.candidates.values()), Limits(bench))
    print(bench.table().to_string(), f"winner: {choice.winner.name}", sep="\n")
    save_model(choice.winner.build(), job.output)
