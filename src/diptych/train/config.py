"""TrainConfig: how long, how fast and how carefully to train; the same settings for every system."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from diptych.core.config import Config


class TrainConfig(Config):
    """The choices of the trainer.

    Reference:
        Loshchilov, Hutter 2019 (AdamW, arXiv 1711.05101; cosine, arXiv 1608.03983); the defaults of `betas` and
        `weight_decay` are those of CLIP (Radford et al. 2021, arXiv 2103.00020), with a milder decay.
    """

    epochs: float = Field(default=10.0, ge=0, description="passes over the training data, for each stage of a system")
    steps: int = Field(default=0, ge=0, description="optimizer steps, for each stage; 0 goes by epochs")
    init: str = Field(default="", description="folder of a run whose weights to begin with; empty: none")
    lr: float = Field(default=5e-4, gt=0, description="largest learning rate")
    tower_lr: float = Field(default=0.1, ge=0, description="factor on lr for weights that came pretrained")
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="factor on lr for each block of a tower that lies above; 1 is off"
    )
    phase_lr: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={}, description="factor on lr for a named phase of a system that alternates, as a GAN does"
    )
    stage_lr: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={}, description="factor on lr for a named stage of a system that learns in stages"
    )
    stage_epochs: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={}, description="epochs of a named stage, in the place of epochs; steps go before both"
    )
    weight_decay: float = Field(default=0.1, ge=0, description="decoupled decay of matrices; never of norms or biases")
    betas: tuple[float, float] = Field(default=(0.9, 0.98), description="decay of AdamW's two averages")
    warmup: float = Field(default=0.05, ge=0, description="rise of the rate: steps, or below 1 a share of all steps")
    schedule: Literal["cosine", "constant"] = Field(default="cosine", description="learning rate after the warm-up")
    clip: float = Field(default=1.0, ge=0, description="largest norm of the gradient; 0 leaves it as it is")
    accumulate: int = Field(default=1, ge=1, description="parts a batch is cut into to save memory; exact")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="arithmetic of layers; auto is bf16 on a GPU that has it, else fp32"
    )
    sharding: Literal["none", "fsdp"] = Field(
        default="none", description="fsdp spreads weights and optimizer over the processes of torchrun"
    )
    ema: float = Field(default=0.0, ge=0, lt=1, description="decay of averaged weights, scored and kept; 0 is off")
    evaluate_every: float = Field(default=1.0, ge=0, description="epochs between scores on valid; 0 only at the end")
    patience: int = Field(default=0, ge=0, description="scores without a better one before stopping; 0 is off")
    save_every: int = Field(default=0, ge=0, description="steps between saves of the state to go on from; 0 is off")
    save_minutes: float = Field(default=10.0, ge=0, description="minutes between such saves; 0 is off")
    log: tuple[Literal["jsonl", "tensorboard"], ...] = Field(default=("jsonl",), description="where the curves go")
    log_every: int = Field(default=10, ge=1, description="steps between lines of the log")
    seed: int = Field(default=0, ge=0, description="start of all random numbers")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1 or mps")


HARMLESS = ("save_every", "save_minutes", "device", "log")
"""Settings that may differ when a run goes on: they change no number in it."""
