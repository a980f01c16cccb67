"""An image that was opened once and serves any number of remasters."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

from cosremaster.codecs.base import BlockCache
from cosremaster.errors import CorruptError, ProofError, ScriptError, UsageError
from cosremaster.io.shared_use import SharedUse
from cosremaster.io.source import ByteSource, check_fetched, open_source
from cosremaster.iso.model import IsoImage
from cosremaster.layers.address import Address
from cosremaster.layers.find import ImageLayers
from cosremaster.layers.scan import MAX_EXPAND, ScanOptions
from cosremaster.lazy_path import make_path
from cosremaster.progress import COPY, Progress, SilentProgress, expect_work
from cosremaster.records import replace
from cosremaster.remastering.layer_index import LayerIndex
from cosremaster.remastering.open import RemasterImage, check_changeable, open_any_image

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from typing_extensions import Unpack

    from cosremaster.io.blobs import BlobStore
    from cosremaster.io.output import Output
    from cosremaster.io.shared_sums import SharedSums
    from cosremaster.io.urls import ImagePath
    from cosremaster.layers.boot_facts import BootFacts
    from cosremaster.layers.kept_plain import PlainKeeper
    from cosremaster.layers.remembered_parts import RememberedParts
    from cosremaster.remastering.context import RemasterContext
    from cosremaster.remastering.output_options import OutputKeywords, OutputOptions
    from cosremaster.remastering.plan import RemasterPlan
    from cosremaster.remastering.prepared import Prepared
    from cosremaster.remastering.request import NormalizedRequest, Request
    from cosremaster.remastering.run_time import RunTime
    from cosremaster.remastering.select_layers import MeantFile


class OpenedImage:
    """An image that was opened once and serves any number of remasters, from several threads; a context manager.

    Its layers are indexed once, when they are first needed. ``remember``: use and keep the index in the user's cache
    directory; ``check_index``: before a kept index is used, compare the SHA-256 of the files of the image that it
    describes. ``max_expand``: data beyond the first GiB that expand by more than this ratio are refused as a bomb.
    """

    def __init__(
        self, source: ImagePath, *, remember: bool = True, check_index: bool = False,
        max_expand: int = MAX_EXPAND, file: ByteSource | None = None, origin: ByteSource | None = None,
        keeps_parts: bool | None = None, warnings: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Open the image and read its structures. Raises as ``open_image``.

        :param file: the bytes of the image, where they are not those of the file ``source``.
        :param origin: what ``file`` is made from, where the input of a remaster is that.
        :param keeps_parts: whether plans keep what they packed, and runs take it; None: where ``remember`` says so.
        :param warnings: of what ``file`` lacks of that, for each remaster.
        """
        self._file = open_source(source) if file is None else file
        self._use = SharedUse(self._file.close, f"{self._file.place}")
        self._blobs: BlobStore | None = None
        self._sha256 = ""  # where a delta needed it
        self._sums: SharedSums | None = None
        self._origin_size = None if origin is None else origin.size
        try:
            self.image = open_any_image(self._file)
        except BaseException:
            self._file.close()
            raise
        options = ScanOptions(max_expand=max_expand)
        self._index = LayerIndex(self.image, self._file, options, remember=remember, check_index=check_index)
        self._keeps_parts = remember if keeps_parts is None else keeps_parts
        self._caches: dict[Address, BlockCache] = {}
        self._warnings = tuple(warnings)

    def __enter__(self) -> OpenedImage:
        """Return the image itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the image. :raises ImageError: what was fetched of it may be of two files."""
        try:
            if kind is None:
                check_fetched(self._file)
        finally:
            self.close()

    def close(self) -> None:
        """Close the file when the index is stored, and nothing that was prepared reads it any more."""
        self._index.close()
        self._use.close()

    @property
    def remembered_at(self) -> Path | None:
        """The file that keeps the index of this image; None if there is none."""
        return self._index.stored_at

    @property
    def reads_on_demand(self) -> bool:
        """Whether the image is a file system that is read when it is needed, so that it has no index."""
        return self._index.reads_on_demand

    @property
    def facts(self) -> BootFacts:
        """What the image boots; read when it is needed."""
        return self._index.facts

    def address_in(self, layer: str) -> Address:
        """Return the address that ``layer`` means in this image. :raises UsageError: it is no address."""
        from cosremaster.remastering.request import parse_layer_address  # noqa: PLC0415 - rarely asked for by itself

        return parse_layer_address(layer, self.image)

    def check_unchanged(self) -> None:
        """Check that the file is still the one that was opened. :raises ImageError: it changed."""
        self._file.check_unchanged()

    def expect(self, name: str, digits: str, *, progress: Progress | None = None) -> None:
        """Read the whole image and compare its digest ``name`` with the hexadecimal ``digits``.

        :raises ImageError: the digest differs. :raises UsageError: there is no such digest.
        """
        from cosremaster.io.output import check_digest_name  # noqa: PLC0415 - who looks at an image writes none
        from cosremaster.remastering.output_options import compare_digests  # noqa: PLC0415 - the same

        check_digest_name(name)
        compare_digests(self._file, [(name, digits)], progress or SilentProgress())

    def layers(
        self, layer: str | None = None, progress: Progress | None = None, keeper: PlainKeeper | None = None
    ) -> ImageLayers:
        """Return the layers of the image, or of the file that ``layer`` names. Raises as ``find_layers``.

        ``keeper``: keeps plain bytes that are decoded for it, which the caller reads again.
        """
        address = None if layer is None else self.address_in(layer)
        layers = self._index.layers(address, progress or SilentProgress(), keeper)
        self._index.check()
        return layers if address is None else self._index.open_inner(layers, [address])

    def list_meant_files(self, request: Request) -> frozenset[MeantFile]:
        """Return what the request means in the files of the image: the layers it names, or the root file system.

        :raises LayerError: there is no such layer, no root, or several.
        """
        from cosremaster.remastering.request import parse_layers  # noqa: PLC0415 - a remaster does it by itself
        from cosremaster.remastering.select_layers import list_meant_files, read_layers, select_layers  # noqa: PLC0415 - the same

        image = check_changeable(self.image)
        selectors = parse_layers(request.layer, image)
        layers = read_layers(self._index, selectors, SilentProgress())
        return list_meant_files(image, layers, select_layers(image, layers, selectors, self._index.facts))

    def exchanges(self, request: Request, paths: Collection[bytes]) -> bool:
        """Return whether the request exchanges or removes one of the files ``paths`` of the image's own tree.

        Raises as :meth:`remaster`, where the user's files are read and the tree is changed.
        """
        import tempfile  # noqa: PLC0415 - a remaster does it by itself

        from cosremaster.remastering.context import RemasterContext  # noqa: PLC0415 - the same
        from cosremaster.remastering.iso_tree import plan_iso_tree  # noqa: PLC0415 - the same
        from cosremaster.remastering.plan_layers import prepare_overlay  # noqa: PLC0415 - the same
        from cosremaster.remastering.request import normalize_request  # noqa: PLC0415 - the same

        image = check_changeable(self.image)
        normalized = replace(normalize_request(request, image), additions=())
        with RemasterContext(self._file, make_path(tempfile.gettempdir())) as context:
            items = prepare_overlay(normalized, context).iso_items
            edits = plan_iso_tree(image, self._file, normalized.iso_tree(items))
        return any(path in edits.replaced or edits.new_path(path) is None for path in paths)

    def remaster(
        self, target: str | os.PathLike[str], request: Request, *, progress: Progress | None = None,
        **options: Unpack[OutputKeywords],
    ) -> tuple[RemasterPlan, tuple[str, ...]]:  # fmt: skip
        """Write the image to ``target`` with the changes of ``request``. Return the plan and the proof, in lines.

        ``options``: the fields of :class:`~cosremaster.remastering.output_options.OutputOptions`.

        :raises CosremasterError: one of its kinds; the target is then not there.
        """
        from cosremaster.remastering.output_options import OutputOptions  # noqa: PLC0415 - who looks at an image writes none
        from cosremaster.remastering.request import find_new_codec, normalize_request  # noqa: PLC0415 - the same

        check_changeable(self.image)
        writing = OutputOptions(**options)
        writing.check(make_path(target))
        normalized = normalize_request(request, self.image)
        if writing.delta:
            return self._write_delta(make_path(target), normalized, writing, progress)
        normalized = replace(normalized, codec=find_new_codec(self.image, make_path(target).name))
        return self._write(target, normalized, writing, progress)

    def write_base(
        self, target: str | os.PathLike[str], request: Request, part_size: int, *, progress: Progress | None = None,
        **options: Unpack[OutputKeywords],
    ) -> tuple[RemasterPlan, tuple[str, ...]]:  # fmt: skip
        """Write the image to ``target`` with its layers cut into parts of at most ``part_size`` plain bytes.

        ``request`` says which layers, how many threads, and how they are compressed. Returns as :meth:`remaster`.

        :raises UsageError: the name ``target`` says another codec. :raises CosremasterError: as :meth:`remaster`.
        """
        from cosremaster.remastering.output_options import OutputOptions  # noqa: PLC0415 - as in remaster
        from cosremaster.remastering.prepare import check_part_size  # noqa: PLC0415 - the same
        from cosremaster.remastering.request import find_new_codec, normalize_request  # noqa: PLC0415 - the same

        check_changeable(self.image)
        check_part_size(part_size)
        writing = OutputOptions(**options)
        writing.check(make_path(target))
        if find_new_codec(self.image, make_path(target).name) is not None:
            name = self._file.name
            raise UsageError(f"{target}: a preparation keeps the compression of {name}, so their names end alike")
        normalized = replace(normalize_request(request, self.image), part_size=part_size)
        return self._write(target, normalized, writing, progress)

    def _write(
        self, target: str | os.PathLike[str], normalized: NormalizedRequest, writing: OutputOptions,
        progress: Progress | None,
    ) -> tuple[RemasterPlan, tuple[str, ...]]:  # fmt: skip
        """Write the image to ``target`` with the changes of ``normalized``. Returns and raises as :meth:`remaster`."""
        from cosremaster.io.output import Output  # noqa: PLC0415 - who looks at an image writes none
        from cosremaster.overlay.request import host_paths  # noqa: PLC0415 - the same
        from cosremaster.remastering.context import RemasterContext  # noqa: PLC0415 - the same
        from cosremaster.remastering.output_options import checking_digests  # noqa: PLC0415 - the same
        from cosremaster.remastering.write import write_image  # noqa: PLC0415 - the same

        expected = writing.expected_digests()
        inputs, sources = self._file.local_paths, host_paths((*normalized.additions, *normalized.iso_additions))
        with (
            Output(
                make_path(target), inputs,
                force=writing.force, digest=writing.digest, sync=writing.sync, sources=sources,
            ) as output,
            nullcontext()
            if writing.report is None
            else Output(
                make_path(writing.report), inputs, force=writing.force, sync=writing.sync, sources=sources
            ) as report,
            checking_digests(self._file, expected) as digests,
            RemasterContext(
                self._file, output.folder, progress, caches=self._caches, parts=self._open_parts(),
                start_precopy=lambda limit: output.start_precopy(self._file, limit),
            ) as context,
        ):  # fmt: skip
            file_sum = output.sum_beside(self._shared_sums()) if writing.sha256 else None
            expect_work(context.progress, COPY, self._file.size)
            for path in output.stale_digests():
                context.warnings.add(f"{path}: belongs to the image that was replaced")
            plan = self._plan(normalized, context, report)
            if report is not None:
                from cosremaster.remastering.change_report import report_chunks  # noqa: PLC0415 - rarely wanted

                report.write_chunks(report_chunks(plan, self._file))
                output.add_companion(report)

            def check_input() -> None:
                """Check the bytes that the plan stands on."""
                self._index.check()
                digests.check()

            proof = write_image(
                self._ready_to_prove(plan), plan.result, output, self._file, context.progress,
                check_input=check_input, read_back=writing.read_back,
            )  # fmt: skip
        return replace(plan, sha256=file_sum.digits) if file_sum is not None else plan, proof

    def _shared_sums(self) -> SharedSums:
        """Return what sums the images that are made from this one."""
        if self._sums is None:
            from cosremaster.io.shared_sums import SharedSums  # noqa: PLC0415 - who looks at an image writes none

            self._sums = SharedSums(self._file)
        return self._sums

    def _write_delta(
        self, target: Path, normalized: NormalizedRequest, writing: OutputOptions, progress: Progress | None
    ) -> tuple[RemasterPlan, tuple[str, ...]]:  # fmt: skip
        """Write the difference from the image to ``target``, and which it is to a note beside. As :meth:`remaster`."""
        from cosremaster.deltas.compose import for_original_base  # noqa: PLC0415 - few outputs are deltas
        from cosremaster.deltas.note import note_path  # noqa: PLC0415 - the same
        from cosremaster.deltas.sums import TableSums  # noqa: PLC0415 - the same
        from cosremaster.io.blobs import BlobStore  # noqa: PLC0415 - the same
        from cosremaster.io.output import Output  # noqa: PLC0415 - who looks at an image writes none
        from cosremaster.overlay.request import host_paths  # noqa: PLC0415 - the same
        from cosremaster.remastering.context import RemasterContext  # noqa: PLC0415 - the same
        from cosremaster.remastering.delta import DeltaSums, summing_beside, write_delta  # noqa: PLC0415 - as above
        from cosremaster.remastering.output_options import checking_digests  # noqa: PLC0415 - who looks writes none
        from cosremaster.remastering.prepared import prepare_plan  # noqa: PLC0415 - few outputs are deltas

        inputs, sources = self._file.local_paths, host_paths((*normalized.additions, *normalized.iso_additions))
        with (
            Output(
                target, inputs, force=writing.force, digest=writing.digest, sync=writing.sync, sources=sources
            ) as output,
            Output(note_path(target), inputs, force=writing.force, sync=writing.sync, sources=sources) as note,
            checking_digests(self._file, writing.expected_digests()) as digests,
            summing_beside(self._file) if not self._sha256 else nullcontext(lambda: self._sha256) as sum_file,
            RemasterContext(
                self._file, output.folder, progress, caches=self._caches, parts=self._open_parts()
            ) as context,
        ):

            def sum_base() -> str:
                """Return the digest of the image."""
                self._sha256 = self._sha256 or sum_file()
                return self._sha256

            output.add_companion(note)
            for path in output.stale_digests():
                context.warnings.add(f"{path}: belongs to the delta that was replaced")
            if target.suffix.lower() in (".iso", ".img"):
                context.warnings.add(f"{target}: is a delta, which no machine boots, though its name says an image")
            expect_work(context.progress, COPY, self._file.size)
            plan = self._plan(normalized, context, None)
            store = BlobStore(output.folder)
            with prepare_plan(self._ready_to_prove(plan), plan, self._file, store, self._use) as prepared:
                files = (output, note)
                table, digest = for_original_base(prepared.table, writing.base_delta, sum_base)
                sums = DeltaSums(digest, TableSums(prepared.table, self._shared_sums()))
                facts = write_delta(table, plan, files, sums, context.progress, has_sums=not writing.plain)
            self._file.check_unchanged()
            self._index.check()
            digests.check()
            output.publish(context.progress.warn)
        made = f"the delta makes the {prepared.size:,} bytes that were planned: it was read again, range by range"
        return replace(plan, delta=facts), (*prepared.proof, made)

    def _ready_to_prove(self, plan: RemasterPlan) -> RemasterImage:
        """Return the image with what helps to prove the result of ``plan``.

        :raises UnsupportedError: it is not changed. :raises CorruptError: what a layer keeps is damaged.
        """
        image = check_changeable(self.image)
        for change in plan.changes:
            change.layer.check_kept()
        if isinstance(image, IsoImage):
            return image
        seams = (layer.packed.seams for layer in plan.packed if layer.packed.table is plan.result.table)
        return replace(image, layers=self._index.known_layers(), seams=next(seams, ()))

    def plan(
        self, request: Request, *, target: str = "", report: str | os.PathLike[str] | None = None,
        force: bool = False, delta: bool = False, progress: Progress | None = None,
    ) -> RemasterPlan:  # fmt: skip
        """Return the plan of :meth:`remaster`. What is compressed for it is kept for that, where this is remembered.

        ``delta``: with the size of the delta that it would write.

        ``target``: the name of the output, whose end may say a codec. ``report``: a file for what would happen to each
        path, as JSON; ``force`` replaces it.
        """
        import tempfile  # noqa: PLC0415 - a remaster goes without

        from cosremaster.io.output import Output  # noqa: PLC0415 - who looks at an image plans none
        from cosremaster.overlay.request import host_paths  # noqa: PLC0415 - the same
        from cosremaster.progress.recorded import RecordingProgress  # noqa: PLC0415 - the same
        from cosremaster.remastering.context import RemasterContext  # noqa: PLC0415 - the same
        from cosremaster.remastering.plan import with_savings  # noqa: PLC0415 - the same
        from cosremaster.remastering.request import find_new_codec, normalize_request  # noqa: PLC0415 - the same

        recording = RecordingProgress(progress or SilentProgress())
        normalized = normalize_request(request, self.image)
        if target:
            normalized = replace(normalized, codec=find_new_codec(self.image, target))
        inputs, sources = self._file.local_paths, host_paths((*normalized.additions, *normalized.iso_additions))
        with (
            nullcontext()
            if report is None
            else Output(make_path(report), inputs, force=force, sources=sources) as output,
            RemasterContext(
                self._file, make_path(tempfile.gettempdir()), recording, caches=self._caches,
                parts=self._open_parts(stores=True),
            ) as context,
        ):  # fmt: skip
            plan = with_savings(self._plan(normalized, context, output))
            if delta:
                from cosremaster.remastering.delta import plan_delta  # noqa: PLC0415 - few outputs are deltas

                plan = plan_delta(plan, self._file, context.folder)
            if context.parts is not None:
                context.parts.finish()
                plan = replace(plan, parts=context.parts.total)
            plan = replace(plan, time=self._estimate_run(plan, recording.work_times, context.parts))
            self._index.check()
            if output is not None:
                from cosremaster.remastering.change_report import report_chunks  # noqa: PLC0415 - rarely wanted

                output.write_chunks(report_chunks(plan, self._file))
                output.publish(context.progress.warn)
            return plan

    def _open_parts(self, *, stores: bool = False) -> RememberedParts | None:
        """Return what plans packed, to which more is added where ``stores``; None where nothing is remembered."""
        from cosremaster.layers.cache_folder import PARTS_SUFFIX, measure_remembered  # noqa: PLC0415 - who looks packs nothing

        if not self._keeps_parts or not (stores or measure_remembered(PARTS_SUFFIX)[0]):
            return None
        from cosremaster.layers.remembered_parts import RememberedParts  # noqa: PLC0415 - few runs follow a plan

        return RememberedParts(stores=stores)

    def _estimate_run(
        self, plan: RemasterPlan, measured: Mapping[tuple[str, str], tuple[int, float]], parts: RememberedParts | None
    ) -> RunTime:
        """Return about how long the run of ``plan`` takes, whose planning took as long as ``measured``.

        ``parts``: what was kept for it.
        """
        from cosremaster.layers.work_rates import WorkRates  # noqa: PLC0415 - who looks at an image plans none
        from cosremaster.remastering.run_time import estimate_run  # noqa: PLC0415 - the same

        rates, keeps_index = WorkRates().load(), self.remembered_at is not None
        return estimate_run(plan, self._file, measured, rates, keeps_index=keeps_index, parts=parts)

    def prepare(self, request: Request, *, progress: Progress | None = None) -> tuple[RemasterPlan, Prepared]:
        """Return the plan of :meth:`remaster`, and the new image as it would be written, proved, to be read in parts.

        The second outlives this image. Raises as :meth:`remaster`.
        """
        import tempfile  # noqa: PLC0415 - a remaster goes without

        from cosremaster.io.blobs import BlobStore  # noqa: PLC0415 - a remaster needs none
        from cosremaster.remastering.context import RemasterContext  # noqa: PLC0415 - who looks at an image plans none
        from cosremaster.remastering.prepared import prepare_plan  # noqa: PLC0415 - a remaster needs none
        from cosremaster.remastering.request import normalize_request  # noqa: PLC0415 - who looks at an image plans none

        check_changeable(self.image)
        folder = make_path(tempfile.gettempdir())
        if self._blobs is None:
            self._blobs = BlobStore(folder)
        with RemasterContext(
            self._file, folder, progress, caches=self._caches, parts=self._open_parts()
        ) as context:  # fmt: skip
            plan = self._plan(normalize_request(request, self.image), context, None)
            prepared = prepare_plan(self._ready_to_prove(plan), plan, self._file, self._blobs, self._use)
            try:
                self._index.check()
            except BaseException:
                prepared.close()
                raise
            return plan, prepared

    def _plan(self, request: NormalizedRequest, context: RemasterContext, report: Output | None) -> RemasterPlan:
        """Return the plan of a remaster. Raises as ``plan_remaster``; damage is told by its place in the image.

        Where a script fails, the ``report``, if any, is written about that.
        """
        from cosremaster.remastering.plan import plan_remaster  # noqa: PLC0415 - who looks at an image plans none

        context.warnings.extend(self._warnings)
        try:
            plan = plan_remaster(check_changeable(self.image), self._index, request, context)
            parts = plan.parts if context.parts is None else context.parts.total
            return replace(plan, origin_size=self._origin_size, parts=parts)
        except (CorruptError, ProofError):
            self._index.check()  # decoding damaged bytes may have led to any such error
            raise
        except ScriptError as error:
            if report is not None:
                from cosremaster.remastering.change_report import failure_chunks  # noqa: PLC0415 - rarely wanted

                report.write_chunks(failure_chunks(error, context.outcomes))
                report.publish(context.progress.warn)
            raise
