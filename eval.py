"""Evaluate a trained network: ``python3 -m uv run eval.py run=runs/latest``."""

import hydra
from omegaconf import DictConfig

from senet.training.entry import command_line, evaluate


@hydra.main(version_base="1.3", config_path="configs", config_name="eval")
def main(config: DictConfig) -> None:
    """Evaluate what Hydra composed."""
    evaluate(config)


if __name__ == "__main__":
    command_line(main)
