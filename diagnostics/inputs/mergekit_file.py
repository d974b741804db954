"""What a mergekit file says, key by key, with whatever cannot be followed faithfully refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn

from pydantic import BeforeValidator, Field, StrictStr

from diagnostics.inputs.documents import Document, Name, Part, finite, nearest
from diagnostics.inputs.examples import refuse_input
from diagnostics.inputs.texts import user_path

__all__ = ["PER_MODEL", "MergekitFile"]

# Parameters that change the merged weights, by method, with their values where a file has none.
_REQUIRED = object()
_GENERAL: Mapping[str, Any] = {"weight": _REQUIRED, "normalize": False, "lambda": 1.0}
_SPARSE: Mapping[str, Any] = {**_GENERAL, "density": 1.0, "rescale": True}
_METHODS: Mapping[str, Mapping[str, Any]] = {
    "linear": {"weight": _REQUIRED, "normalize": True},
    "task_arithmetic": _GENERAL,
    "ties": {**_SPARSE, "normalize": True, "rescale": False},
    "dare_linear": _SPARSE,
    "dare_ties": _SPARSE,
}
_OTHER_METHODS = (
    *("slerp", "nuslerp", "multislerp", "karcher", "nearswap", "passthrough", "model_stock", "arcee_fusion", "sce"),
    *("breadcrumbs", "breadcrumbs_ties", "della", "della_linear", "ram", "ramplus_tl"),
)
PER_MODEL = ("weight", "density")
_FLAGS = ("normalize", "rescale", "int8_mask")
_PARAMETERS = (*PER_MODEL, *_FLAGS, "lambda")
_DTYPES = ("float32", "bfloat16", "float16", "float64")
# Sections that change which tensors meet.
_SECTIONS = {
    "slices": "Layers taken from here and there make another model than the base plus an update: write models.",
    "modules": "Merge one module at a time: write its models at the top level.",
}

_EXAMPLE = "models: [{model: models/news, parameters: {weight: 0.5, density: 0.5}}]"
_KEYS = {
    "merge_method": ("the name of a merge method", "merge_method: ties"),
    "base_model": ("a path", "base_model: models/base"),
    "models": ("a list of models, each with its model and parameters", _EXAMPLE),
    "models.*.model": ("a path", "model: models/news"),
    "models.*.parameters": ("numbers by name", "parameters: {weight: 0.5, density: 0.5}"),
    "parameters": ("values by name", "parameters: {normalize: true, lambda: 1.0}"),
    "dtype": ("the name of a floating-point type", "dtype: float32"),
    "out_dtype": ("the name of a floating-point type", "out_dtype: bfloat16"),
    "tokenizer_source": ("base, union or a path", "tokenizer_source: base"),
    "tokenizer": ("a mapping with a source", "tokenizer: {source: base}"),
    "chat_template": ("a text", "chat_template: auto"),
}
# Where a file has the key and nothing after it, YAML reads null.
_Settings = Annotated[dict[StrictStr, Any], BeforeValidator(lambda value: {} if value is None else value)]


class _Model(Part):
    """An entry of ``models``."""

    model: Name
    parameters: _Settings = Field(default_factory=dict)


class MergekitFile(Document):
    """What a file says; :meth:`require_supported` comes before everything else.

    Attributes:
        merge_method: The method.
        base_model: The base, as it is written.
        models: The models, the base perhaps among them.
        parameters: What holds for all models.
        dtype: The type that mergekit computes in.
        out_dtype: The type that mergekit saves.
        tokenizer_source: The model whose vocabulary the merge gets.
        tokenizer: The same, in its newer form.
        chat_template: A template to save with the merge.
        slices: Refused.
        modules: Refused.
    """

    keys: ClassVar = _KEYS
    first: ClassVar = ("merge_method", "models")

    merge_method: Name
    base_model: Name | None = None
    models: list[_Model] = Field(default_factory=list)
    parameters: _Settings = Field(default_factory=dict)
    dtype: Name | None = None
    out_dtype: Name | None = None
    tokenizer_source: Name | None = None
    tokenizer: dict[StrictStr, Any] | None = None
    chat_template: StrictStr | None = None
    slices: Any = None
    modules: Any = None

    @property
    def used(self) -> Mapping[str, Any]:
        """The parameters that the method uses, with their defaults."""
        return _METHODS[self.merge_method]

    @property
    def entries(self) -> dict[str, _Model]:
        """The models by the place where the file has them."""
        return {f"models.{index}": model for index, model in enumerate(self.models)}

    @property
    def bases(self) -> list[str]:
        """Where the base is among the models."""
        return [where for where, entry in self.entries.items() if entry.model == self.base_model]

    def refuse(self, key: str, expected: str, found: object, remedy: str) -> NoReturn:
        """Raise the error for a value of the file."""
        shown = "nothing" if found is None else repr(found)
        refuse_input(f"{self._file}: {key}", expected, shown if len(shown) <= 80 else f"{shown[:79]}…", remedy)

    def require_supported(self) -> None:
        """Refuse what is no base plus an update by a method that is known here.

        Raises:
            InputError: If the file is refused.
        """
        self._require_method()
        for where, given in {"": self.parameters, **{f"{w}.": m.parameters for w, m in self.entries.items()}}.items():
            for key in given:
                if key not in _PARAMETERS:
                    remedy = f"mergekit ignores others in {self.merge_method}. {nearest(key, _PARAMETERS)}"
                    self.refuse(f"{where}parameters", f"names among {', '.join(_PARAMETERS)}", key, remedy)
        for key, dtype in (("dtype", self.dtype), ("out_dtype", self.out_dtype)):
            if dtype is not None and dtype.removeprefix("torch.") not in _DTYPES:
                self.refuse(key, f"one of {', '.join(_DTYPES)}", dtype, "Write one of them, or leave it out.")
        for key in self.tokenizer or {}:
            if key != "source":
                remedy = "It changes the rows of the vocabulary: resize the models first, and leave it out."
                self.refuse(f"tokenizer.{key}", "only a source", self.tokenizer, remedy)

    def _require_method(self) -> None:
        """Refuse other methods, and models that such a method cannot merge."""
        method = self.merge_method
        if method not in _METHODS:
            other = "It is a method of mergekit that is not read here." if method in _OTHER_METHODS else None
            self.refuse("merge_method", f"one of {', '.join(_METHODS)}", method, other or nearest(method, _METHODS))
        for key, remedy in _SECTIONS.items():
            if getattr(self, key) is not None:
                self.refuse(key, "none", getattr(self, key), remedy)
        if len(self.models) == len(self.bases):
            self.refuse("models", "a model besides the base", None, f"Write, for example, {_EXAMPLE}")
        if len(self.bases) > 1:
            self.refuse(f"{self.bases[1]}.model", "the base once", self.base_model, "Leave it out.")
        if self.base_model is None and method != "linear":
            self.refuse(
                "base_model", "a path", None, f"{method} adds updates to it: name the experts' common ancestor."
            )

    def shared(self, key: str) -> Any:
        """Return a parameter that holds for all models.

        Args:
            key: Its name.

        Returns:
            Its value, or the default of the method.

        Raises:
            InputError: If the value is of the wrong kind.
        """
        return self._checked(f"parameters.{key}", key, self.parameters.get(key, self.used[key]))

    def own(self, where: str, key: str) -> float:
        """Return a parameter of one model, which goes before what holds for all.

        Args:
            where: Where the file has the model.
            key: Its name.

        Returns:
            Its value.

        Raises:
            InputError: If there is none and the method needs one, or it is of the wrong kind.
        """
        given = self.entries[where].parameters
        if key in given:
            return self._checked(f"{where}.parameters.{key}", key, given[key])
        if self.parameters.get(key, self.used[key]) is _REQUIRED:
            remedy = f"{self.merge_method} needs one for every model: write, for example, {key}: 0.5"
            self.refuse(f"{where}.parameters.{key}", "a number", None, remedy)
        return self.shared(key)

    def _checked(self, where: str, key: str, value: Any) -> Any:
        """A value of the right kind."""
        if isinstance(value, list | dict):
            remedy = "Values by layer or by filter are not read here: write one for all layers."
            self.refuse(where, "one value for all layers", value, remedy)
        if key in _FLAGS:
            return (
                value if isinstance(value, bool) else self.refuse(where, "true or false", value, "Write one of them.")
            )
        try:
            number = finite(value)
        except ValueError:
            self.refuse(where, "a finite number", value, f"Write, for example, {key}: 0.5")
        if key == "density" and not 0 < number <= 1:
            self.refuse(where, "a number above 0 and up to 1", value, "Leave out a model of which nothing is kept.")
        return number

    def local(self, where: str, given: str) -> Path:
        """Return the path of a model on this machine.

        Args:
            where: Where the file names it.
            given: What it says there.

        Returns:
            The path; a relative one starts in the folder of the file.

        Raises:
            InputError: If nothing is there.
        """
        path = user_path(self.folder / user_path(given))
        if not path.exists():
            remedy = "Paths are relative to the folder of the recipe."
            if Path(given).exists():
                remedy += f" mergekit takes them from where it is run: write {str(Path(given).resolve())!r}."
            elif given.count("/") == 1 and not given.startswith((".", "/", "~")):
                model, _, revision = given.partition("@")
                option = f" --revision {revision}" if revision else ""
                remedy += f" A model of the Hub is downloaded first: hf download {model}{option} --local-dir FOLDER"
            refuse_input(f"{self._file}: {where}", "a folder or file", f"{given!r}: nothing at {path}", remedy)
        return path

    def expert(self, where: str) -> Path:
        """Return the path of an expert; mergekit writes a LoRA adapter as ``base+adapter``.

        Args:
            where: Where the file has the model.

        Returns:
            Path of the model or of the adapter.

        Raises:
            InputError: If nothing is there, or the adapter is not one of the base.
        """
        given = self.entries[where].model
        model, *adapters = given.split("+")
        if not adapters:
            return self.local(f"{where}.model", given)
        if model != self.base_model or len(adapters) > 1:
            remedy = "Merge the adapter into its model first, with PEFT's merge_and_unload(), and write that folder."
            self.refuse(f"{where}.model", "a model, or base_model+adapter", given, remedy)
        return self.local(f"{where}.model", adapters[0])
