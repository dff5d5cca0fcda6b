"""Decoding a clip against diffusers: the same weights, inputs and tiles, in turns, in one process.

The demonstration's own autoencoder on 33 frames of 128 pixels, and a random one of middle size (channels 32 to 128)
on 9 frames of 320 pixels, which are four tiles. With --sizes middle-1.5 that of HunyuanVideo-1.5 (channels 32 to 256)
on as many: wanted is 0.8 of diffusers' time.
"""

from __future__ import annotations

import sys

from measuring import autoencoder

if __name__ == "__main__":
    sys.exit(autoencoder.run("vae-decode", __doc__, is_decode=True))
