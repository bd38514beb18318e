"""Checks that the demo model finds the same pass keys in every parallel configuration.

Documents are made from a seed, so that every server gets the same questions. The answers are compared, cell by cell, with
those of one rank. The configurations include every way of dividing a prompt or its keys, and every axis.
"""

import collections

SEED = 1
DEPTHS = "0,50,100"
# Query-gather attention is used even for short documents.
OWNED = ["--dcp-min-keys", "1"]
LAYOUTS = {
    "one rank": [],
    "context 2": ["--attn-cp-size", "2"],
    "context 4, interleaved": ["--attn-cp-size", "4"],
    "context 4, zigzag": ["--attn-cp-size", "4", "--cp-strategy", "zigzag"],
    "context 8": ["--attn-cp-size", "8"],
    "keys owned by 2": ["--dcp-size", "2", *OWNED],
    "keys owned by 4": ["--dcp-size", "4", *OWNED],
    "keys owned by 4 in runs of 2": ["--dcp-size", "4", "--dcp-interleave", "2", *OWNED],
    "keys owned by 8": ["--dcp-size", "8", *OWNED],
    "tensor 2 × context 2": ["--tp-size", "4", "--attn-cp-size", "2"],
    "tensor 2 × context 2, keys owned by 4": ["--tp-size", "4", "--attn-cp-size", "2", "--dcp-size", "4", *OWNED],
    "2 stages": ["--pp-size", "2"],
    "data 2, experts 2, all-to-all": ["--attn-dp-size", "2", "--ep-size", "2", "--moe-a2a-backend", "alltoall"],
}

Cell = collections.namedtuple("Cell", "length depth right wrong failed")


def run(start, stop, evaluate, lengths, expects_all):
    """Returns whether all parallel configurations answer as one rank does.

    start(options) returns a server that is ready and its address; evaluate(url, options) returns the report of
    `braid eval passkey`.
    expects_all: whether one rank must find every key, as it does in documents that are not too long for the model.
    """
    options = ["--lengths", ",".join(map(str, lengths)), "--depths", DEPTHS, "--num-questions", "1", "--seed", str(SEED)]
    reference, passed = None, 0
    for name, layout in LAYOUTS.items():
        server, url = start(layout)
        cells = [Cell(**cell) for cell in evaluate(url, options)["cells"]]
        stop(server)
        reference = reference or cells
        right, asked = sum(cell.right for cell in cells), len(cells)
        different = [cell for cell, one in zip(cells, reference) if cell != one]
        good = len(cells) == len(reference) and not different and all(cell.failed == 0 for cell in cells)
        good = good and (right == asked or not expects_all)
        passed += good
        print(f"{'ok     ' if good else 'FAILED '} {name}: {right} of {asked} pass keys in {lengths} tokens", flush=True)
        for cell in different:
            print(f"        not as on one rank: {cell}", flush=True)
    print(f"{passed} passed, {len(LAYOUTS) - passed} failed", flush=True)
    return passed == len(LAYOUTS)
