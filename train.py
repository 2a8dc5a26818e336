"""Train a Squeeze-and-Excitation network: ``python3 -m uv run train.py --help`` shows what can be chosen."""

import hydra
from omegaconf import DictConfig

from senet.training.entry import command_line, train
from senet.training.study import main as study


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(config: DictConfig) -> None:
    """Train what Hydra composed."""
    train(config)


if __name__ == "__main__":
    command_line(main, study)
