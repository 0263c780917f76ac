"""Which towers a system has, as plain settings, and how they are built: built in, or pretrained by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge
from pydantic import Field

from diptych.core.batch import DataSpec
from diptych.core.config import Config
from diptych.data.tokenizer import Tokenizer
from diptych.encoders import taught
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.image import ResNetTower, ViT
from diptych.encoders.plan import apply_plan
from diptych.encoders.swin import Swin
from diptych.encoders.text import TextTransformer

IMAGE_TOWERS = ("vit", "masked_vit", "resnet", "swin")
TEXT_TOWERS = ("transformer",)

Count = Annotated[int, Ge(1)]


class ImageTowerConfig(Config):
    """The image tower of a system; what a tower does not need is not read."""

    image_encoder: str = Field(default="vit", description="vit, masked_vit, resnet, swin, a local folder, or a name")
    image_train: str = Field(default="auto", description="auto, all, frozen, last:N, lora:R or lora:R:all")
    image_size: Count | None = Field(default=None, description="pixels; None: what the tower was made for, or 64")
    image_patch: Count = Field(default=8, description="vit, swin: side of a patch in pixels")
    image_dim: Count = Field(default=128, description="vit: width; swin: of its last stage")
    image_layers: Count = Field(default=4, description="vit: number of blocks")
    image_heads: Count = Field(default=4, description="vit: attention heads; swin: of its last stage")
    image_width: Count = Field(default=16, description="resnet: channels of its stem")
    image_blocks: tuple[Count, ...] = Field(default=(1, 1, 1), description="resnet: blocks of each stage")
    image_depths: tuple[Count, ...] = Field(default=(2, 2), description="swin: blocks of each stage")
    image_window: Count = Field(default=4, description="swin: side of a window, in cells of the grid")
    image_stem: Literal["convolution", "patch"] = Field(
        default="convolution", description="swin: overlapping convolutions as in CoSwin, or patches as in Swin"
    )
    image_pool: str = Field(default="auto", description="vit: class or mean; pretrained: class, mean or pooler")
    image_grid: int | None = Field(
        default=None, description="transformers: hidden state of the grid; swin: its stage; None: the last"
    )
    tower_activation: str = Field(default="gelu", description="built-in towers: gelu, quick_gelu or relu")
    tower_dropout: float = Field(default=0.0, ge=0, lt=1, description="built-in towers: dropout")


class TowerConfig(ImageTowerConfig):
    """The two towers of a system; what a tower does not need is not read.

    A tower is one of the built-in ones ("vit", "resnet", "swin", "masked_vit", which is that of `mae` and `mae_clip`;
    "transformer"), a local folder, a name on the Hugging Face hub, "timm:NAME", "open_clip:NAME", or "config:FOLDER"
    (an architecture, whose weights come with a checkpoint).
    How much of it is trained: "all", "frozen", "last:N" (the last N blocks), "lora:R" (rank R beside the attention's
    linear maps), "lora:R:all" (beside all linear maps), or "auto": a built-in tower all, a pretrained one frozen.
    """

    learns: ClassVar[str] = "pairs"

    text_encoder: str = Field(default="transformer", description="transformer, a local folder, or a name")
    text_train: str = Field(default="auto", description="as image_train")
    text_dim: Count = Field(default=128, description="transformer: width")
    text_layers: Count = Field(default=4, description="transformer: number of blocks")
    text_heads: Count = Field(default=4, description="transformer: attention heads")
    text_pool: str = Field(default="auto", description="transformer: last or mean; pretrained: also class, max")
    text_depths: tuple[int, ...] = Field(
        default=(), description="transformers: hidden states whose means over the words make the summary"
    )
    text_context: Count | None = Field(default=None, description="tokens; None: what the tower can read, or 32")
    text_vocabulary: Count = Field(default=8192, description="transformer: tokens learnt from the captions, at most")


class TaughtConfig(TowerConfig):
    """The towers of a student; a teacher decides the tokens, the size of pictures and the length of texts."""

    teacher: str = Field(default="", description="folder of the run that teaches; empty: none")


def image_size_for(config: ImageTowerConfig) -> int:
    """Return the side in pixels at which pictures should be decoded for the image tower, or for its teacher.

    Raises:
        UserError: when the teacher is no run, or the student asks for another size than it.
    """
    if isinstance(config, TaughtConfig) and config.teacher:
        return taught.image_size_of(config.teacher, _own_image_size(config))
    own = _own_image_size(config)
    return 64 if own is None else own


def _own_image_size(config: ImageTowerConfig) -> int | None:
    """Return the size that a config asks for; None for a built-in tower of any size."""
    if config.image_size is not None:
        return config.image_size
    if config.image_encoder in IMAGE_TOWERS:
        return None
    from diptych.encoders import pretrained

    return pretrained.image_size(config.image_encoder)


def context_for(config: TowerConfig) -> int:
    """Return how many tokens a text may have for the text tower and its teacher, first and last one included."""
    own = _own_context(config)
    if isinstance(config, TaughtConfig) and config.teacher:
        return taught.context_of(config.teacher, own)
    return 32 if own is None else own


def _own_context(config: TowerConfig) -> int | None:
    """Return the tokens that a config asks for; None for a built-in tower of any length."""
    if config.text_encoder in TEXT_TOWERS:
        return config.text_context
    from diptych.encoders import pretrained

    longest = pretrained.text_context(config.text_encoder)
    return longest if config.text_context is None else min(longest, config.text_context)


def tokenizer_for(config: TowerConfig, captions: Iterable[str]) -> Tokenizer:
    """Return the pretrained text tower's tokenizer; for the built-in tower its teacher's, or one trained on captions.

    Raises:
        UserError: when the teacher is no run, or a pretrained text tower reads other tokens than it.
    """
    teacher = config.teacher if isinstance(config, TaughtConfig) else ""
    if config.text_encoder in TEXT_TOWERS:
        if teacher:
            return taught.tokenizer_of(teacher)
        return Tokenizer.train(captions, vocabulary=config.text_vocabulary)
    from diptych.encoders import pretrained

    own = Tokenizer.from_pretrained(pretrained.tokenizer_source(config.text_encoder))
    return taught.tokenizer_of(teacher, own) if teacher else own


def build_image(config: ImageTowerConfig, spec: DataSpec) -> ImageEncoder:
    """Build the image tower for pictures of `spec.image_size` pixels.

    Raises:
        UserError: for a tower that is not known or cannot be had, or settings that do not fit together.
    """
    tower: ImageEncoder
    if config.image_encoder == "vit":
        tower = ViT(
            image_size=spec.image_size,
            patch=config.image_patch,
            dim=config.image_dim,
            layers=config.image_layers,
            heads=config.image_heads,
            channels=spec.channels,
            pool="class" if config.image_pool == "auto" else config.image_pool,
            activation=config.tower_activation,
            dropout=config.tower_dropout,
        )
    elif config.image_encoder == "masked_vit":
        from diptych.encoders.masked import masked_tower

        tower = masked_tower(config, spec)
    elif config.image_encoder == "resnet":
        tower = ResNetTower(
            image_size=spec.image_size, width=config.image_width, blocks=config.image_blocks, channels=spec.channels
        )
    elif config.image_encoder == "swin":
        tower = _swin(config, spec)
    else:
        from diptych.encoders import pretrained

        tower = pretrained.image_tower(
            config.image_encoder, pool=config.image_pool, image_size=spec.image_size, grid=config.image_grid
        )
    return apply_plan(tower, _plan(config.image_train, config.image_encoder in IMAGE_TOWERS))


def _swin(config: ImageTowerConfig, spec: DataSpec) -> Swin:
    """Build the hierarchical tower."""
    return Swin(
        image_size=spec.image_size,
        patch=config.image_patch,
        dim=config.image_dim,
        depths=config.image_depths,
        heads=config.image_heads,
        window=config.image_window,
        stem=config.image_stem,
        grid=config.image_grid,
        channels=spec.channels,
        activation=config.tower_activation,
        dropout=config.tower_dropout,
    )


def _plan(train: str, fresh: bool) -> str:  # noqa: FBT001
    """Say how much of a tower is trained: where nothing was said, all of a fresh one and nothing of a pretrained."""
    if train != "auto":
        return train
    return "all" if fresh else "frozen"


def build_text(config: TowerConfig, spec: DataSpec) -> TextEncoder:
    """Build the text tower for `spec.vocabulary` token ids and texts of `spec.context` tokens.

    Raises:
        UserError: for a tower that is not known or cannot be had, or a vocabulary that is not the tower's.
    """
    tower: TextEncoder
    if config.text_encoder == "transformer":
        tower = TextTransformer(
            vocabulary=spec.vocabulary,
            context=spec.context,
            dim=config.text_dim,
            layers=config.text_layers,
            heads=config.text_heads,
            pool="last" if config.text_pool == "auto" else config.text_pool,
            activation=config.tower_activation,
            dropout=config.tower_dropout,
        )
    else:
        from diptych.encoders import pretrained

        tower = pretrained.text_tower(
            config.text_encoder,
            pool=config.text_pool,
            vocabulary=spec.vocabulary,
            pad_id=spec.pad_id,
            depths=config.text_depths,
        )
    return apply_plan(tower, _plan(config.text_train, config.text_encoder in TEXT_TOWERS))
