"""Studies: many runs from one command, each in processes of its own, with a ledger that can be taken up again.

``train.py -m ...`` and ``train.py search=optuna ...`` come here instead of to Hydra's multirun.
"""


def main(typed: list[str]) -> int:
    """Run the study that the overrides ``typed`` describe; what it needs takes seconds to import."""
    from senet.study.commands import main as run

    return run(typed)
