"""A model in a quarter of its bytes, without loss: weights that were 4-bit once are 4-bit again.

Blocks of 32 values share a half-precision scale; a value is one of 16 multiples of it, -8 to 7 (the form Q4_0 of ggml).
The value of largest size is -8 times the scale, so both can be read off the values. A tensor that is not of this form
stays in half precision if that loses nothing, else as it is.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

BLOCK = 32
SCALE, CODES = ".scale", ".codes"


def pack(weights: dict[str, Tensor], file: Path) -> None:
    """Write tensors so that :func:`unpack` gives them back to the last bit."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        coded = _coded(tensor) if tensor.numel() % (2 * BLOCK) == 0 else None
        if coded is not None and torch.equal(_values(*coded, tensor.shape), tensor.float()):
            found[name + SCALE], found[name + CODES] = coded
            found[name] = torch.tensor(tensor.shape)
        else:
            half = tensor.half()
            found[name] = half if torch.equal(half.float(), tensor.float()) else tensor.contiguous()
    save_file(found, file)


def unpack(file: Path) -> dict[str, Tensor]:
    """The tensors of a packed file, in single precision."""
    found = load_file(file)
    names = [name for name in found if not name.endswith((SCALE, CODES))]
    return {
        name: _values(found[name + SCALE], found[name + CODES], torch.Size(found[name].tolist()))
        if name + SCALE in found
        else found[name].float()
        for name in names
    }


def _coded(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Scales (blocks,) in half precision and two codes a byte (blocks, 16)."""
    blocks = tensor.detach().float().reshape(-1, BLOCK)
    largest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    scale = (largest / -8).half()
    codes = (blocks / scale.float().where(scale != 0, torch.ones(()))).round().clamp(-8, 7).to(torch.int8) + 8
    codes = codes.to(torch.uint8)
    return scale[:, 0].contiguous(), codes[:, : BLOCK // 2] | codes[:, BLOCK // 2 :] << 4


def _values(scale: Tensor, codes: Tensor, shape: torch.Size) -> Tensor:
    """The values; products are rounded to half precision, as they were when the 4-bit form was first unpacked."""
    whole = torch.cat([codes & 15, codes >> 4], 1).float() - 8
    return (whole * scale.float()[:, None]).half().float().reshape(shape)
