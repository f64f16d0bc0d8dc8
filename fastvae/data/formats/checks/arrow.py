"""A check of Arrow files before they are read: their record batches must not be packed."""

import struct
from importlib import import_module
from pathlib import Path

from fastvae.utils.errors import InputError

_HEADER_TYPE = 1  # fields of the flatbuffer Message
_HEADER = 2
_RECORD_BATCH = 3  # a type of header
_COMPRESSION = 3  # a field of the flatbuffer RecordBatch


def check_arrow(path: Path) -> None:
    """Refuse record batches that are packed, which ``save_to_disk`` never writes: they could unpack to any size.

    The layout of the messages is that of Arrow's ``Message.fbs``.

    Raises:
        InputError: a batch is packed, or a message cannot be read.
    """
    pyarrow = import_module("pyarrow")
    with pyarrow.memory_map(str(path), "r") as file:
        reader = pyarrow.ipc.MessageReader.open_stream(file)
        try:
            for message in reader:
                if _is_packed(bytes(message.metadata)):
                    raise InputError(
                        f"{path}: has packed record batches, unlike what save_to_disk writes: save it again"
                    )
        except (struct.error, IndexError) as error:
            raise InputError(f"{path}: is damaged in a message's header ({error}): save it again") from error


def _is_packed(message: bytes) -> bool:
    (root,) = struct.unpack_from("<I", message, 0)
    kind, header = (_field(message, root, number) for number in (_HEADER_TYPE, _HEADER))
    if kind is None or header is None or message[kind] != _RECORD_BATCH:
        return False
    (offset,) = struct.unpack_from("<I", message, header)
    return _field(message, header + offset, _COMPRESSION) is not None


def _field(buffer: bytes, table: int, number: int) -> int | None:
    """Return the place of a field in a flatbuffer's table; None if the field has its default."""
    (back,) = struct.unpack_from("<i", buffer, table)
    vtable = table - back
    (size,) = struct.unpack_from("<H", buffer, vtable)
    if 4 + 2 * number >= size:
        return None
    (offset,) = struct.unpack_from("<H", buffer, vtable + 4 + 2 * number)
    return table + offset if offset else None
