"""The watermark's error-correcting code: a convolutional code of rate 1/4 and constraint length 9, decoded softly.

The generators (463, 535, 733, 745 in octal) have free distance 24, the largest of their kind (Larsen, "Short
convolutional codes with maximal free distance for rates 1/2, 1/3 and 1/4", IEEE Trans. Inf. Theory 19(3), 1973).
Eight zero bits end the message, so that the decoder starts and ends in the zero state.
"""

from __future__ import annotations

import numpy as np

GENERATORS = (0o463, 0o535, 0o733, 0o745)
CONSTRAINT = 9
NUM_STATES = 2 ** (CONSTRAINT - 1)


def _outputs() -> np.ndarray:
    """Signs [register, generator]: the code bits (0 is +1, 1 is -1) that leave for each content of the register."""
    registers = range(2 * NUM_STATES)
    parity = [[(register & generator).bit_count() & 1 for generator in GENERATORS] for register in registers]
    return (1 - 2 * np.array(parity)).astype(np.float32)


_OUTPUTS = _outputs()


def code_length(num_bits: int) -> int:
    """The number of code bits for a message of `num_bits`."""
    return len(GENERATORS) * (num_bits + CONSTRAINT - 1)


def encode(bits: np.ndarray) -> np.ndarray:
    """The codeword of `bits` [num_bits] in {0,1}, as signs float32 [code_length(num_bits)]: 0 is +1, 1 is -1."""
    register, signs = 0, []
    for bit in [*bits.tolist(), *[0] * (CONSTRAINT - 1)]:
        register = (register >> 1) | (int(bit) << (CONSTRAINT - 1))
        signs.append(_OUTPUTS[register])
    return np.concatenate(signs)


def decode(soft: np.ndarray) -> np.ndarray:
    """The most likely messages for `soft` [N,code_length]: uint8 [N,num_bits] (Viterbi, IEEE Trans. Inf. Theory 1967).

    A value above zero speaks for the sign +1 (the bit 0), its size says how strongly; only ratios matter.
    """
    num, length = soft.shape
    num_steps = length // len(GENERATORS)
    # branch[n,step,register]: how well the code bits that leave at `step` for this register agree with what was seen.
    branch = soft.reshape(num, num_steps, -1).astype(np.float32) @ _OUTPUTS.T
    score = np.full((num, NUM_STATES), -np.inf, dtype=np.float32)
    score[:, 0] = 0
    choices = np.empty((num_steps, num, NUM_STATES), dtype=bool)
    for step in range(num_steps):
        # The register holds the new bit on top of the old state; the state that it leaves behind drops the lowest bit.
        # So the new state `register >> 1` is reached from the two registers 2s and 2s+1.
        total = (score[:, None, :] + branch[:, step].reshape(num, 2, NUM_STATES)).reshape(num, NUM_STATES, 2)
        choices[step] = total[..., 1] > total[..., 0]
        score = np.where(choices[step], total[..., 1], total[..., 0])
    return _trace(choices)[:, : num_steps - (CONSTRAINT - 1)]


def _trace(choices: np.ndarray) -> np.ndarray:
    """Walk back from the zero state along `choices` [steps,N,states]; the bit of a step is its state's highest."""
    num_steps, num, _ = choices.shape
    rows, state = np.arange(num), np.zeros(num, dtype=np.int64)
    bits = np.empty((num, num_steps), dtype=np.uint8)
    for step in reversed(range(num_steps)):
        bits[:, step] = state >> (CONSTRAINT - 2)
        state = ((state << 1) | choices[step, rows, state]) & (NUM_STATES - 1)
    return bits
