"""Records: classes that are nothing but their fields, as the whole house takes them from here."""

from __future__ import annotations

from msgspec import Meta, MsgspecError, Struct, convert, field
from msgspec.structs import astuple, replace

__all__ = ["Meta", "MsgspecError", "Struct", "astuple", "convert", "field", "replace"]
