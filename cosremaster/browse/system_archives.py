"""Archives of a root file system as container managers take them: LXD's images, and OCI images for Docker."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cosremaster.browse.architecture import DEFAULT
from cosremaster.browse.export import RootArchive
from cosremaster.browse.tar import TarStream, build_tar
from cosremaster.errors import UsageError
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import sha256_of
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import replace
from cosremaster.tree.content import BytesContent, PieceContent
from cosremaster.tree.nodes import Content, Node, NodeKind

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l", "i386": "i686", "ppc64el": "ppc64le"}
_CONTAINER_MACHINES = {"armhf": "arm", "armel": "arm", "i386": "386", "ppc64el": "ppc64le"}
_REPOSITORY = lazy_regex(r"[a-z0-9]+(?:[._/-][a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?")
_LXD_NAME = lazy_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_EPOCH = datetime(1970, 1, 1)  # in UTC, as all times here


@dataclass(frozen=True, kw_only=True)
class LxdImage(RootArchive):
    """An image of LXD or Incus in one archive: ``metadata.yaml`` and ``rootfs/``.

    ``name``: what it is called there. :raises UsageError: they take no such name.
    """

    name: str

    def __post_init__(self) -> None:
        """Check the name."""
        if not _LXD_NAME.fullmatch(self.name):
            raise UsageError(f"LXD takes no name {self.name!r}: letters, digits, . _ -")

    @property
    def file_name(self) -> str:
        """The name of the archive's file."""
        return f"{self.name}.tar.gz"

    def command(self, path: str) -> str:
        """Return the shell command that imports the archive at ``path``."""
        return f"lxc image import {shlex.quote(path)} --alias {self.name}"

    def nodes(self, root: Iterable[Node], created: int, release: dict[str, str]) -> list[Node]:
        """Return the nodes of the archive for those of a ``root``.

        :param created: seconds since 1970.
        :param release: the values of its os-release(5).
        """
        properties = {
            "architecture": self.machine, "description": release.get("PRETTY_NAME") or self.name, "name": self.name,
            "os": release.get("ID", "linux"), "release": release.get("VERSION_CODENAME") or "unknown",
        }  # fmt: skip
        lines = [f"architecture: {self.machine}", f"creation_date: {created}", "properties:"]
        lines += [f"  {key}: {json.dumps(value)}" for key, value in properties.items()]  # JSON's text is YAML's too
        metadata = "".join(f"{line}\n" for line in lines).encode()
        below = {b"rootfs/" + node.path if node.path else b"rootfs": node for node in root}
        below = {b"rootfs": Node(path=b"", kind=NodeKind.DIRECTORY, mode=0o755, mtime=created)} | below
        nodes = [replace(node, path=path) for path, node in below.items()]
        return [_file(b"metadata.yaml", BytesContent(metadata), created), *nodes]

    @property
    def machine(self) -> str:
        """The architecture as ``uname -m`` has it."""
        name = (self.architecture or DEFAULT).partition("/")[0]
        return _MACHINES.get(name, name)


@dataclass(frozen=True, kw_only=True)
class ContainerImage(RootArchive):
    """An OCI image in one archive, which ``docker load``, podman and skopeo read, too.

    ``name``: its repository, as in ``site/debian:12``; the tag is ``latest`` by default.
    :raises UsageError: this is no such name.
    """

    name: str

    def __post_init__(self) -> None:
        """Check the name."""
        if not _REPOSITORY.fullmatch(self.name):
            raise UsageError(f"{self.name!r} is no name of a container image, as in site/debian:12")

    @property
    def repository(self) -> tuple[str, str]:
        """The name without its tag, and the tag."""
        name, separator, tag = self.name.rpartition(":")
        return (name, tag) if separator else (self.name, "latest")

    @property
    def file_name(self) -> str:
        """The name of the archive's file."""
        return self.repository[0].rpartition("/")[2] + ".tar"

    def command(self, path: str) -> str:
        """Return the shell command that imports the archive at ``path``."""
        return f"docker load --input {shlex.quote(path)}"

    def archive(self, layer: PieceTable, plain_digest: str, created: int) -> TarStream:
        """Return the archive of the image with one ``layer``, a gzip'ed tar archive.

        :param plain_digest: the SHA-256 of the layer before compression.
        :param created: seconds since 1970.
        """
        name, tag = self.repository
        machine = (self.architecture or DEFAULT).partition("/")[0]
        time = _format_time(created)
        config = _json({
            "architecture": _CONTAINER_MACHINES.get(machine, machine), "config": {"Cmd": ["/bin/sh"]}, "created": time,
            "history": [{"created": time, "created_by": "cosremaster"}], "os": "linux",
            "rootfs": {"diff_ids": [f"sha256:{plain_digest}"], "type": "layers"},
        })  # fmt: skip
        packed = PieceContent(tuple(layer.pieces))
        layer_digest, config_digest = packed.digest().hex(), sha256_of((config,)).hex()
        manifest = _json({
            "config": _descriptor(_CONFIG_TYPE, config_digest, len(config)),
            "layers": [_descriptor(_LAYER_TYPE, layer_digest, layer.length)],
            "mediaType": _MANIFEST_TYPE, "schemaVersion": 2,
        })  # fmt: skip
        digest = sha256_of((manifest,)).hex()
        reference = {"io.containerd.image.name": f"{name}:{tag}", "org.opencontainers.image.ref.name": tag}
        index = _json({
            "manifests": [{**_descriptor(_MANIFEST_TYPE, digest, len(manifest)), "annotations": reference}],
            "mediaType": _INDEX_TYPE, "schemaVersion": 2,
        })  # fmt: skip
        docker = _json([{
            "Config": f"blobs/sha256/{config_digest}", "Layers": [f"blobs/sha256/{layer_digest}"],
            "RepoTags": [f"{name}:{tag}"],
        }])  # fmt: skip
        files: dict[str, Content] = {
            "oci-layout": BytesContent(_json({"imageLayoutVersion": "1.0.0"})), "index.json": BytesContent(index),
            "manifest.json": BytesContent(docker), f"blobs/sha256/{digest}": BytesContent(manifest),
            f"blobs/sha256/{config_digest}": BytesContent(config), f"blobs/sha256/{layer_digest}": packed,
        }  # fmt: skip
        folders = (
            Node(path=path, kind=NodeKind.DIRECTORY, mode=0o755, mtime=created) for path in (b"blobs", b"blobs/sha256")
        )
        return build_tar([*folders, *(_file(path.encode(), content, created) for path, content in files.items())])


def part_whiteouts(nodes: Iterable[Node]) -> tuple[list[Node], list[bytes]]:
    """Return the ``nodes`` that a layer of an OCI image can have, and the paths of those that would remove something.

    Those are names that begin with ``.wh.`` (layer.md of the specification), and character devices 0:0, as which
    overlayfs shows no file.
    """
    kept, reserved = list[Node](), list[bytes]()
    for node in nodes:
        is_whiteout = b"/.wh." in b"/" + node.path or (node.kind is NodeKind.CHAR and node.rdev == (0, 0))
        if is_whiteout:
            reserved.append(node.path)
        else:
            kept.append(node)
    return kept, reserved


def _format_time(seconds: int) -> str:
    """Return a time in seconds since 1970 as RFC 3339 has it: its years have four digits, and others become those."""
    first, last = ((moment - _EPOCH) // timedelta(seconds=1) for moment in (datetime.min, datetime.max))
    return (_EPOCH + timedelta(seconds=max(first, min(seconds, last)))).isoformat() + "Z"


def _file(path: bytes, content: Content, mtime: int) -> Node:
    """Return a regular file."""
    return Node(path=path, kind=NodeKind.FILE, mode=0o644, mtime=mtime, content=content)


def _json(value: object) -> bytes:
    """Return ``value`` as JSON in its shortest form, with sorted keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _descriptor(kind: str, digest: str, size: int) -> dict[str, object]:
    """Return the descriptor of a blob (OCI image specification, descriptor.md)."""
    return {"digest": f"sha256:{digest}", "mediaType": kind, "size": size}
