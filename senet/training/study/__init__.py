"""Studies: many runs from one command, each in processes of its own, with a ledger that can be taken up again.

``train.py -m ...`` and ``train.py search=optuna ...`` come here instead of to Hydra's multirun.
"""

from senet.training.study.commands import main

__all__ = ["main"]
