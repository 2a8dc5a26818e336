"""What to say of a key that does not exist: habits from other programs, and the nearest key. Read without torch."""

import re
from collections.abc import Collection, Iterable

from senet.errors import did_you_mean
from senet.models.families import trunks

TRAINER_OURS = {
    **dict.fromkeys(("logger", "default_root_dir", "enable_autolog_hparams"), "choose loggers with logger="),
    **dict.fromkeys(("callbacks", "plugins", "model_registry", "barebones"), "there is nothing to set"),
    **dict.fromkeys(("enable_progress_bar", "enable_model_summary"), "its output goes to log.txt as well"),
    **dict.fromkeys(("use_distributed_sampler", "num_sanity_val_steps"), "there is nothing to set"),
    "reload_dataloaders_every_n_epochs": "each epoch has its own order already",
    "enable_checkpointing": "see checkpoint.every_n_steps",
    "fast_dev_run": "use debug=one_batch",
    "limit_test_batches": "there is no test loop",
    "limit_predict_batches": "there is no prediction loop",
}
"""What the run decides itself, and what to do instead: its directory, loggers and callbacks hold together."""

HABITS = {
    "ckpt_path": "resume=RUN_DIR continues a run; model.weights=FILE starts a new one from weights",
    "callbacks": "the run has its own; see checkpoint., ema. and trainer.",
    "resume_from_checkpoint": "resume=RUN_DIR continues a run",
    "hydra": "Hydra's own settings have no effect here: runs_dir= and name= say where results go, launcher= where "
    "jobs of a study run",
    "epochs": "trainer.max_epochs=",
    "batch_size": "data.batch_size=",
    "lr": "optimizer.lr=",
}
"""Keys of other programs, and ours."""


def no_such_key(key: str, valid: Collection[str], typed: Iterable[str] = ()) -> str:
    """Say that there is no such key, and what its user will have meant; ``typed`` chose the network."""
    first, _, rest = key.partition(".")
    if first == "trainer" and rest in TRAINER_OURS:
        return f"{key} is decided by the run; {TRAINER_OURS[rest]}"
    habit = re.split(r"[./]", key)[0]
    if habit in HABITS:
        return f"there is no key {key}: {HABITS[habit]}"
    if first == "se":
        return f"{key}: this network has no SE block; choose an SE network with model=se_NAME"
    if first == "data" and rest and "data.batch_size" not in valid:  # an evaluation of a run's own images
        return (
            f"{key}: no data set was chosen; root=, size=, batch_size= and workers= change the run's own, "
            "data=NAME takes another"
        )
    if first == "model" and rest:
        chosen = [t.partition("=")[2] for t in typed if t.startswith("model=")]
        having = sorted({family.se_twin(name) for name, family in trunks().items() if rest in family.options})
        if having:
            return f"{key}: {' '.join(chosen) or 'this network'} has no option {rest}; {', '.join(having[:3])} have it"
    return f"there is no key {key}{did_you_mean(key, valid)}"
