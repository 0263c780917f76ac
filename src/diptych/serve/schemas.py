"""What the API takes and gives, as types; the OpenAPI document is made of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Plain = str | int | float | bool
Range = dict[Literal[">=", ">", "<=", "<"], str | int | float]
Where = Annotated[
    dict[str, Plain | list[Plain] | Range | None],
    Field(
        description="Conditions on the columns of a picture, all of which must hold: a value, several values of which "
        'any will do, a range such as {">=": 2000}, or null for a column that is not there.',
        examples=[{"split": ["dev", "test"]}],
    ),
]
K = Annotated[int, Field(ge=1, description="Pictures to find.")]


class Asked(BaseModel):
    """A body of JSON; unknown names are refused."""

    model_config = ConfigDict(extra="forbid")


class TextSearch(Asked):
    """Look for pictures by what is on them."""

    text: str = Field(description="What to look for.", examples=["a dog runs through the snow"])
    k: K = 20
    where: Where | None = None


class IdSearch(Asked):
    """Look for more pictures like one of the index."""

    id: str = Field(description="Of a picture of the index, as in a result.")
    k: K = 20
    where: Where | None = None


class Found(BaseModel):
    """One picture that was found."""

    id: str = Field(description="Names the picture in this index.")
    score: float = Field(description="Cosine similarity to what was looked for, in [-1, 1].")
    text: str | None = Field(description="What the index knows to be said of it.")
    metadata: dict[str, object] = Field(description="Its other columns.")
    picture: str | None = Field(description="Where the picture is on this server; null when it cannot be read.")
    width: int | None = Field(description="Pixels of the whole picture.")
    height: int | None = Field(description="Pixels of the whole picture.")


class Results(BaseModel):
    """Pictures, the nearest first."""

    results: list[Found]
    milliseconds: float = Field(description="Spent on the answer.")


class Similarities(BaseModel):
    """How well pictures and texts go together."""

    cosines: list[list[float]] = Field(description="For each picture its cosine with each text, in [-1, 1].")


class Tag(BaseModel):
    """A label with its probability."""

    label: str
    probability: float = Field(description="Among the labels that were asked about; they add up to 1.")


class Tags(BaseModel):
    """Labels, the likeliest first."""

    tags: list[Tag]


class Word(BaseModel):
    """A word with its weight."""

    word: str
    weight: float = Field(description="In [0, 1]; the weightiest word of the text has 1.")


class Area(BaseModel):
    """A part of a picture, as shares of its width and height."""

    left: float
    top: float
    width: float
    height: float


class Answer(BaseModel):
    """An answer with its probability."""

    answer: str
    probability: float = Field(description="By the model's own reckoning, among all answers that it knows.")


class Answers(BaseModel):
    """Answers to a question, the likeliest first."""

    answers: list[Answer]


class Part(BaseModel):
    """A part of what was told, with a heat map of its own."""

    name: str = Field(description="A word of a caption, or an answer.")
    heat: str = Field(description="As the heat map of the whole, smaller.")


class Why(BaseModel):
    """Why a picture met a text, a caption says what it says, or a question got its answer."""

    score: float = Field(description="What is explained.")
    unit: str = Field(description="Of the score: cosine, or log-probability of the text or answer in nats.")
    words: list[Word]
    heat: str = Field(description="A PNG to lay over the picture, as a data: address; opaque where the evidence is.")
    area: Area = Field(description="The part of the picture that the model saw, which the heat map covers.")
    method: str = Field(description="How the heat map was made.")
    word_method: str = Field(description="How the words were weighed.")
    answers: list[Answer] = Field(
        description="Of a model that answers: the answer explained, then the likeliest others."
    )
    parts: list[Part] = Field(description="A map for each word of a caption, or for each of those answers.")


class Caption(BaseModel):
    """A text that the model wrote."""

    text: str
    log_prob: float = Field(description="Its log-probability under the model, in nats.")


class Captions(BaseModel):
    """Texts about a picture, the likeliest first."""

    captions: list[Caption]


class Wish(Asked):
    """Draw pictures for a text."""

    text: str = Field(description="What they should show.", examples=["a large red circle"])
    count: Annotated[int, Field(ge=1, le=16, description="Pictures.")] = 8
    seed: Annotated[int, Field(ge=0, le=2**32 - 1, description="The same draws the same pictures again.")] = 0


class Drawings(BaseModel):
    """Pictures that the model drew."""

    pictures: list[str] = Field(description="PNG files, as data: addresses.")


class Limits(BaseModel):
    """What one request may ask for."""

    megabytes: float
    pixels: int
    characters: int
    labels: int
    pictures: int
    results: int


class About(BaseModel):
    """What this server serves."""

    system: str = Field(description="The kind of model.")
    version: str = Field(description="Of diptych.")
    offers: list[str] = Field(description="What it can do: search, tags, similarity, explain, caption, ask, generate.")
    pictures: int = Field(description="In the index; 0 without one.")
    sample: list[Found] = Field(description="Some pictures of the index; their score is 0.")
    limits: Limits


class Health(BaseModel):
    """How the server is."""

    status: Literal["live", "ready"]


class Problem(BaseModel):
    """Why a request was not served."""

    error: str = Field(description="One line: what was asked, what is allowed, what to do.")
