"""The ONNX frontend: open a model, read it as a semantic view, patch it.

Importing this module does not import onnx; opening a model does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

from stabilize.errors import MissingExtraError, ModelError
from stabilize.frontends.onnx_runtimes import PORTABLE, Runtime
from stabilize.graph.host import Host, Piece
from stabilize.graph.value import Value
from stabilize.graph.view import Replacement, View
from stabilize.quiet import unlogged

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    import torch

    from stabilize.frontends.onnx_bodies import Inside
    from stabilize.frontends.onnx_coarse import Coarse
    from stabilize.frontends.onnx_patch import Patcher
    from stabilize.frontends.onnx_piece import Index
    from stabilize.frontends.onnx_read import Reader

    OnnxModel: TypeAlias = onnx.ModelProto | ir.Model | torch.onnx.ONNXProgram | str | os.PathLike[str]

#: Oldest operator set whose operators are read. Before 11, axes, bounds and types were spelled differently.
OLDEST_OPSET = 11


def is_onnx(model: object) -> bool:
    """A ModelProto, an onnx_ir.Model or an ONNXProgram, told without importing any of them."""
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(model).__mro__}
    return bool(kinds & {("onnx", "ModelProto"), ("onnx_ir", "Model"), ("torch", "ONNXProgram")})


def _need_onnx() -> None:
    try:
        import onnx
        import onnx_ir
    except ImportError as error:
        missing = error.name or "onnx"
        raise MissingExtraError(missing.replace("_", "-"), "onnx", "reading an ONNX model") from error
    del onnx, onnx_ir


@final
class OnnxHost:
    """An ONNX graph that has been read: the main graph of a model, or one inside it as a model of its own.

    `model` returns the kind of model that was given: a proto for a path, an `ir.Model` for a graph inside.
    """

    kind: Literal["onnx"] = "onnx"

    def __init__(
        self,
        model: ir.Model,
        given: onnx.ModelProto | torch.onnx.ONNXProgram | None,
        name: str,
        inside: Inside | None = None,
        runtime: Runtime = PORTABLE,
    ) -> None:
        """`given`: what was read, None for an `ir.Model`; `inside`: where the graph stands if not by itself;
        `runtime`: what will run it."""
        self.runtime = runtime
        self._model = model
        self._given = given
        self._inside = inside
        self.name = name
        self.opset = opset_of(model.graph)
        if self.opset < OLDEST_OPSET:
            raise ModelError(
                f"{name}: opset {self.opset} is older than {OLDEST_OPSET}: "
                "convert it first, e.g. onnx.version_converter.convert_version(model, 18)"
            )

    @cached_property
    def _reader(self) -> Reader:
        from stabilize.frontends.onnx_read import Reader

        return Reader(self._model, self.opset, None if self._inside is None else self._inside.sizes)

    @property
    def is_too_large(self) -> bool:
        """Whether no runtime can be asked to run the model: its functions written out have no end to speak of."""
        from stabilize.frontends.onnx_check import is_too_large

        return is_too_large(self._model)

    @property
    def outer_names(self) -> tuple[str, ...]:
        return () if self._inside is None else self._inside.captured

    @property
    def view(self) -> View:
        return self._view

    @cached_property
    def _view(self) -> View:
        return self._reader.read()

    @cached_property
    def _scratch(self) -> Patcher:
        """Tries emission on a copy; nothing of it leaves this host."""
        return self._patcher(self._model.clone(), scratch=True)

    def _patcher(self, model: ir.Model, scratch: bool = False) -> Patcher:
        from stabilize.frontends.onnx_patch import Patcher

        if self._inside is None:
            return Patcher(model, self.view, self.opset, runtime=self.runtime)
        names = self._inside.names
        initializers = not self._inside.function
        return Patcher(model, self.view, self.opset, names.copy() if scratch else names, initializers, self.runtime)

    def piece(self, names: Sequence[str], targets: Sequence[str]) -> Piece:
        """The nodes that lead from some values to others as a model."""
        from stabilize.frontends.onnx_piece import piece

        return piece(self._reader.model, self._index, self.view, names, targets)

    @cached_property
    def _index(self) -> Index:
        from stabilize.frontends.onnx_piece import Index

        return Index(self._reader.model.graph)

    @property
    def examples(self) -> dict[str, torch.Tensor]:
        """A file holds no inputs."""
        return {}

    @property
    def sizes(self) -> dict[str, int]:
        """ONNX does not say what symbols stood for."""
        return {}

    def patched(self, replacements: Sequence[Replacement]) -> OnnxHost:
        """The host with `replacements` applied; ModelError when one cannot be written in its opset."""
        if not replacements:
            return self
        model = self._model.clone()
        self._patcher(model).apply(replacements)
        return OnnxHost(model, self._given, self.name, self._inside, self.runtime)

    def bodies(self) -> dict[str, Host]:
        """Bodies of control flow, and model-local functions. Graphs of other domains' operators are opaque."""
        from stabilize.frontends import onnx_bodies, onnx_functions
        from stabilize.frontends.onnx_emitter import Names
        from stabilize.frontends.onnx_patch import taken_names

        # those of a body are the model's
        functions = self._inside is None and bool(self._model.functions) and not self.is_too_large
        if not functions and not onnx_bodies.slots(self._model):
            return {}
        _ = self.view  # the reader has read
        names = Names(taken_names(self._model.graph)) if self._inside is None else self._inside.names
        owned = self._model.clone()
        found = {
            name: OnnxHost(model, None, f"{self.name}/{name}", inside, self.runtime)
            for name, model, inside in onnx_bodies.taken_out(owned, self._reader, names)
        }
        if functions:
            owned = self._model.clone()
            for label, model, inside in onnx_functions.taken_out(owned, self._reader):
                found[label] = OnnxHost(model, None, f"{self.name}/{label}", inside, self.runtime)
        return dict(found)

    def with_bodies(self, bodies: Mapping[str, Host]) -> OnnxHost:
        """The host with graphs inside it replaced by what patching made of them."""
        from stabilize.frontends import onnx_bodies, onnx_functions

        inner: dict[str, tuple[ir.Model, Inside]] = {}
        functions: dict[str, ir.Model] = {}
        for name, body in bodies.items():
            if not isinstance(body, OnnxHost) or body._inside is None:
                raise TypeError(f"{name} is no body of an ONNX graph")
            if body._inside.function:
                functions[name] = body._model
            else:
                inner[name] = (body._model, body._inside)
        model = self._model.clone()
        onnx_bodies.put_back(model, inner)
        onnx_functions.put_back(model, functions)
        return OnnxHost(model, self._given, self.name, self._inside, self.runtime)

    def model(self) -> onnx.ModelProto | ir.Model | torch.onnx.ONNXProgram:
        """A model of its own, of the kind that was given."""
        import onnx

        if isinstance(self._given, onnx.ModelProto):
            from stabilize.frontends.onnx_proto import transplant

            return transplant(self._given, self._model)
        model = self._model.clone()
        if self._given is None:
            return model
        import torch

        return torch.onnx.ONNXProgram(model, self._given.exported_program)

    def refusal(self, replacement: Replacement) -> str | None:
        """Why `replacement` cannot be written in this model's opset; None when it can."""
        return self._scratch.refusal(replacement)

    def coarse(self) -> dict[Value, Coarse]:
        """Values that the runtime computes badly by a node of the graph, with what could be written instead."""
        from stabilize.frontends.onnx_coarse import coarse

        if not self.runtime.is_measured:
            return {}
        return coarse(self._reader.model.graph, self.view, self.runtime, self._scratch.spelling)

    def check_whole(self) -> None:
        """ModelError for external data that is not there: without it a model is read as if its numbers were unknown."""
        from stabilize.frontends.onnx_files import check_present

        check_present(self._model, self.name)

    def tensor(self, value: Value) -> torch.Tensor | None:
        """The data of a weight or constant; None for other values, and when its external file is not there."""
        from stabilize.frontends.onnx_types import DTYPES, to_torch

        if value.op != "input":
            return None
        view = self.view
        name = str(value.attr("name"))
        tensor = self._reader.tensors.get(name) if name in view.parameters else None
        if tensor is None or tensor.dtype not in DTYPES:
            return None
        try:
            return to_torch(tensor.numpy())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{self.name}: the data of {name} cannot be read ({error}): save the model again"
            ) from error


def opset_of(graph: ir.Graph) -> int:
    """The version of the default domain; without one, the oldest that is read, of which nothing can be there.

    Files hold 64 bits of it, and onnx takes 32.
    """
    imports = graph.opset_imports
    return min(imports.get("", imports.get("ai.onnx", OLDEST_OPSET)), 2**31 - 1)


def open_onnx(model: OnnxModel, runtime: Runtime = PORTABLE) -> OnnxHost:
    """Read a `ModelProto`, an `onnx_ir.Model`, a `torch.onnx.ONNXProgram` or an `.onnx` file.

    External data is referred to, not loaded. runtime: what will run what is made of it.

    ModelError when the file is missing, is no ONNX model, is older than opset 11, or refers to data outside its
    folder; MissingExtraError when onnx is not installed.
    """
    _need_onnx()
    import onnx
    import onnx_ir as ir

    from stabilize.frontends import onnx_files

    if isinstance(model, ir.Model):
        return OnnxHost(_checked(model, "the model"), None, model.graph.name or "model", None, runtime)
    if isinstance(model, onnx.ModelProto):
        onnx_files.check_locations(model, "the model")
        return OnnxHost(_deserialized(model, "the model"), model, model.graph.name or "model", None, runtime)
    if not isinstance(model, (str, os.PathLike)):
        return OnnxHost(_checked(model.model, "the model"), model, model.model.graph.name or "model", None, runtime)
    path = os.fspath(model)
    proto = onnx_files.load(path)
    read = _deserialized(proto, path)
    external: Any = ir.external_data
    external.set_base_dir(read.graph, os.path.dirname(os.path.abspath(path)))
    return OnnxHost(read, proto, path, None, runtime)


def _checked(model: ir.Model, name: str) -> ir.Model:
    from stabilize.frontends import onnx_check, onnx_files, onnx_names, onnx_tensors

    onnx_check.check_order(model, name)
    onnx_files.check_ir_locations(model, name)
    onnx_tensors.check_tensors(model, name)
    return onnx_names.with_own_names(model)


def _deserialized(proto: onnx.ModelProto, name: str) -> ir.Model:
    import onnx_ir as ir

    from stabilize.frontends.onnx_check import check_order
    from stabilize.frontends.onnx_proto import remember
    from stabilize.frontends.onnx_sparse import declare_sparse
    from stabilize.frontends.onnx_tensors import check_tensors

    try:
        with unlogged():  # it warns of dangling inputs, which are refused below
            model = ir.serde.deserialize_model(proto)
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        first = str(cause).partition("\n")[0]
        raise ModelError(f"{name}: not a valid ONNX model ({first}): check it with onnx.checker") from error
    declare_sparse(proto.graph, model.graph, name)
    check_order(model, name)
    check_tensors(model, name)
    remember(proto, model)
    return model


def save(model: onnx.ModelProto | ir.Model | Any, path: str | os.PathLike[str], data_folder: str | None = None) -> None:
    """Write a model in one step (temporary name, then rename).

    data_folder: the folder of the file it was read from, when the model refers to external data: the data is copied
    beside `path` if that is another folder.
    """
    _need_onnx()
    import onnx
    import onnx_ir as ir

    from stabilize.frontends import onnx_write

    proto = model if isinstance(model, onnx.ModelProto) else ir.serde.serialize_model(model)
    onnx_write.write(proto, path, data_folder)
