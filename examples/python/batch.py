"""A record batch in Kafka's v2 layout: what an idempotent producer has to send.

Friendly records (`ProduceRequest.records`) need none of this; they carry no producer id.
"""

import struct


def _table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC_TABLE = _table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def varint(number):
    """Zigzag, seven bits a byte, lowest first."""
    number = number << 1 ^ number >> 63
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(data):
    return varint(-1) if data is None else varint(len(data)) + data


def encode(records, now_ms, producer_id=-1, producer_epoch=-1, base_sequence=-1):
    """`records`: (key, value, headers), each None or bytes; headers as (name, value)."""
    body = bytearray()
    for delta, (key, value, headers) in enumerate(records):
        record = b"\0" + varint(0) + varint(delta) + _field(key) + _field(value)
        record += varint(len(headers))
        for name, content in headers:
            record += varint(len(name)) + name + _field(content)
        body += varint(len(record)) + record
    # From the attributes on: what the checksum covers. No compression, times of creation.
    covered = struct.pack(
        ">hiqqqhii",
        0,
        len(records) - 1,
        now_ms,
        now_ms,
        producer_id,
        producer_epoch,
        base_sequence,
        len(records),
    ) + bytes(body)
    # Leader epoch (the leader sets it), magic 2, checksum.
    rest = struct.pack(">ibI", -1, 2, crc32c(covered)) + covered
    # Base offset (the leader sets it), length of what follows.
    return struct.pack(">qi", 0, len(rest)) + rest
