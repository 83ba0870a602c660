#!/usr/bin/env python3
"""Q-GaLore once more, in plain numpy: writes the recorded trajectories q_galore_adamw_8bit-*.safetensors.

    tests/reference/q_galore_twin.py [FOLDER]        needs numpy, nothing else

Written from a description of the method and of its published code (Zhang et al., arXiv 2407.08296, and the quantizer,
projector and optimizer in its repository), not from the library it tests. The order of one step:

  W   what the int8 codes stand for
  P   at k mod gap = 0: first singular vectors of G. The cosine of the first one with the last first one joins a queue; when
      that is full and its mean at least cos_threshold, the gap grows gamma_proj times. P is then kept in int4 only.
  R   Pᵀ G (wide), G Pᵀ (tall and square)
  N   Adam on R with bitsandbytes' moments: two dynamic maps, blocks of 256, fp32 where R has fewer than 4096 elements;
      epsilon beside the corrected root; the update takes the moments as they are before they are encoded again
  W   W - lr scale P N, then W - lr weight_decay W, then codes with scales of their own, to nearest

Not as published, because it is a defect there: ranges of a block contain 0; scales are bf16, as in its training runs, but
rounded up, so that no value is outside; int8 weights have a range one code wider (s = width / 254, z rounded up).

Arithmetic is fp64; what is stored is rounded as it is stored. Gradients and learning rates are moved by about a percent
until nothing that is rounded lies near a decision boundary, so every correct implementation stores the same codes, and its
weights are the recorded ones bit for bit.
"""
import json
import pathlib
import struct
import sys

import numpy as np

BLOCK = 256


# ---- formats -----------------------------------------------------------------------------------------------------------
def dynamic_map(signed):
    """bitsandbytes' map: 7 decades, each cut into twice as many parts as the one below; midpoints, 0 and 1."""
    values = [0.0, 1.0]
    for decade in range(7):
        ends = np.linspace(0.1, 1, (2**decade if signed else 2 ** (decade + 1)) + 1)
        middle = 10.0 ** (decade - 6) * (ends[:-1] + ends[1:]) / 2
        values += [*middle, *(-middle if signed else ())]
    return np.sort(np.array(values)).astype(np.float32).astype(np.float64)


def up_to_bf16(x):
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


def blocks(flat):
    return [slice(at, min(at + BLOCK, flat.size)) for at in range(0, flat.size, BLOCK)]


class Margins:
    """The elements, by number in the flat tensor, that are too near to a boundary to be safe."""

    def __init__(self, size):
        self.bad = np.zeros(size, bool)

    def need(self, where, ok):
        self.bad[where] |= ~np.asarray(ok)


def affine(x, bits, headroom, safe):
    """What x is after it was kept in that many bits."""
    flat, top = x.ravel(), 2**bits - 1
    out, margins = np.empty_like(flat), Margins(flat.size)
    for part in blocks(flat):
        low, high = min(flat[part].min(), 0.0), max(flat[part].max(), 0.0)
        exact = (high - low) / (top - 1) if headroom else max(high - low, 1e-5) / top
        s = up_to_bf16(exact)
        z = -np.floor(low / s) if headroom else np.clip(-np.rint(low / s), 0, top)
        # Rounding of s, of z, and of the elements.
        grid = 2.0 ** (np.floor(np.log2(exact)) - 7)
        margins.need(part, abs(exact / grid - np.rint(exact / grid)) > 1e-4)
        edge = low / s + (0.0 if headroom else 0.5)
        margins.need(part, low == 0 or abs(edge - np.rint(edge)) > safe)
        margins.need(part, abs(flat[part] / s + 0.5 - np.rint(flat[part] / s + 0.5)) > safe)
        out[part] = (np.clip(np.rint(flat[part] / s) + z, 0, top) - z) * s
    return out.reshape(x.shape), margins.bad.reshape(x.shape)


class Moment:
    def __init__(self, size, signed):
        self.map, self.values = dynamic_map(signed), np.zeros(size)
        self.edges, self.signed = (self.map[1:] + self.map[:-1]) / 2, signed

    def keep(self, x):
        """Encodes and decodes; True where a code is in doubt."""
        if x.size < 4096:
            self.values = x.astype(np.float32).astype(np.float64)
            return np.zeros(x.size, bool)
        margins = Margins(x.size)
        self.values = np.empty_like(x)
        for part in blocks(x):
            scale = np.float64(np.float32(abs(x[part]).max()))
            y = x[part] / scale
            code = np.searchsorted(self.edges, y)
            gap = np.minimum(abs(y - self.edges[np.minimum(code, 254)]), abs(y - self.edges[np.maximum(code - 1, 0)]))
            margins.need(part, gap > 2e-5 * abs(y) + (3e-6 if self.signed else 0.0))
            self.values[part] = (self.map[code].astype(np.float32) * np.float32(scale)).astype(np.float64)
        return margins.bad


# ---- the method --------------------------------------------------------------------------------------------------------
class Lazy:
    """When the basis is found anew."""

    def __init__(self, o):
        self.o, self.gap, self.queue, self.last = o, o["update_proj_gap"], [], None

    def due(self, k):
        return k % self.gap == 0

    def see(self, first):
        if self.last is not None:
            self.queue = (self.queue + [float(first @ self.last)])[-self.o["queue_size"] :]
            mean = np.mean(self.queue)
            assert abs(mean - self.o["cos_threshold"]) > 0.05, "too near to the threshold"
            if len(self.queue) == self.o["queue_size"] and mean >= self.o["cos_threshold"]:
                self.gap = int(self.gap * self.o["gamma_proj"])
        self.last = first


def first_vectors(g, rank, turn):
    """As the weight lies: m x r for a wide one, r x n for others. `turn` flips the sign of the whole basis, which an SVD may."""
    u, _, vt = np.linalg.svd(g, full_matrices=False)
    wide = g.shape[0] < g.shape[1]
    p = u[:, :rank] if wide else vt[:rank]
    first = p[:, 0] if wide else p[0]
    return (p * (turn * np.sign(first[np.argmax(abs(first))]))).astype(np.float32).astype(np.float64), wide


def trajectory(shape, o, steps, seed, turns):
    rng = np.random.default_rng(seed)
    tensors, rates = {}, []
    common = rng.standard_normal(shape) + 3 * np.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1]))
    start = (0.03 * rng.standard_normal(shape)).astype(np.float32)
    for _ in range(1000):
        w, bad = affine(start.astype(np.float64), 8, True, 1e-4)
        if not bad.any():
            break
        start = np.where(bad, start * (1 + 0.01 * rng.standard_normal(shape)), start).astype(np.float32)
    assert not bad.any()
    tensors["weight"] = start
    lazy, moments, (b1, b2), p = Lazy(o), None, o["betas"], None
    for k in range(steps):
        g = (common + rng.standard_normal(shape)).astype(np.float32).astype(np.float64)
        if lazy.due(k):
            exact, wide = first_vectors(g, o["rank"], turns.get(k, 1))
            lazy.see(exact[:, 0] if wide else exact[0])
            tensors[f"basis.{k}"] = exact
            p, bad = affine(exact, o["proj_bits"], False, 1e-6)
            assert not bad.any(), "a basis element on a boundary: another seed"
            inverse = np.linalg.inv(p.T @ p if wide else p @ p.T)
        if moments is None:
            inner = (o["rank"], shape[1]) if wide else (shape[0], o["rank"])
            moments = Moment(inner[0] * inner[1], True), Moment(inner[0] * inner[1], False)
        old = [m.values.copy() for m in moments]
        for _ in range(1000):
            r = p.T @ g if wide else g @ p.T
            flat = r.ravel()
            m = b1 * old[0] + (1 - b1) * flat
            v = b2 * old[1] + (1 - b2) * flat**2
            bad = moments[0].keep(m) | moments[1].keep(v)
            typical = np.sqrt(np.mean(flat**2))
            small = abs(flat) < 0.05 * typical  # where N is all rounding
            if not (bad | small).any():
                break
            move = np.where(small, 0.1 * typical * (1 + rng.random(flat.size)), 0.01 * flat * rng.standard_normal(flat.size))
            move = np.where(bad | small, move, 0).reshape(r.shape)
            g = g + (p @ inverse @ move if wide else move @ inverse @ p)
            g = g.astype(np.float32).astype(np.float64)
        assert not (bad | small).any()
        t = k + 1
        n = (m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + o["eps"])).reshape(r.shape)
        direction = o["scale"] * (p @ n if wide else n @ p)
        for _ in range(1000):
            rate = np.float64(np.float32(o["lr"] * (1 + 0.05 * rng.standard_normal())))
            moved = w - rate * direction
            moved = moved - rate * o["weight_decay"] * moved
            kept, bad = affine(moved, 8, True, 1e-4)
            if not bad.any():
                break
        assert not bad.any()
        w = kept
        rates.append(float(rate))
        tensors[f"gradient.{k}"], tensors[f"expected.{k}"] = g, w
    return tensors, rates, lazy


def write(path, tensors, metadata):
    header, data = {"__metadata__": metadata}, b""
    for name, value in sorted(tensors.items()):
        raw = np.ascontiguousarray(value, np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


USUAL = {"update_proj_gap": 1, "scale": 0.25, "proj_type": "std", "proj_bits": 4, "proj_group_size": 256, "cos_threshold": 0.4,
         "gamma_proj": 2, "queue_size": 2, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "weight_bits": 8,
         "weight_group_size": 256, "stochastic_round": False}
# Where turns has a step, the basis of that refresh comes with the other sign: the cosine is negative, and the gap waits.
CASES = [
    ("wide-48x128", (48, 128), {"rank": 32, "weight_decay": 0.1}, 7, 61, {}),
    ("tall-128x48", (128, 48), {"rank": 32, "betas": [0.9, 0.95]}, 7, 62, {2: -1}),
    ("square-72x72", (72, 72), {"rank": 57, "scale": 1.0, "weight_decay": 0.05}, 6, 63, {}),
]


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "fixtures")
    for name, shape, own, steps, seed, turns in CASES:
        options = {**USUAL, **own}
        tensors, rates, lazy = trajectory(shape, {**options, "lr": 0.01}, steps, seed, turns)
        found = sorted(int(name.split(".")[1]) for name in tensors if name.startswith("basis."))
        path = folder / f"q_galore_adamw_8bit-{name}.safetensors"
        write(path, tensors, {
            "format": "lowrank-replay-1", "optimizer": "q_galore_adamw_8bit", "options": json.dumps(options),
            "learning_rates": json.dumps(rates), "tolerance": "1e-05",
            "source": f"tests/reference/q_galore_twin.py, numpy {np.__version__}, seed {seed}",
            "notes": "weights are int8: expected.k is what the codes stand for, and a single other code exceeds the tolerance"})
        print(f"{path.name}: bases at {found}, last gap {lazy.gap}, cosines {np.round(lazy.queue, 2)}")


if __name__ == "__main__":
    main()
