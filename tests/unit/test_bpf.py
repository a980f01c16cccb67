"""The assembler of BPF programs: an interpreter of its own runs what it makes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.sandbox.bpf import (
    JUMP_IF_ANY_BIT,
    JUMP_IF_EQUAL,
    JUMP_IF_GREATER_OR_EQUAL,
    MAX_INSTRUCTIONS,
    BpfProgram,
    split_instructions,
    write_switch,
)
from tests.support.bpf import run_program

WORDS = st.integers(0, 0xFFFFFFFF)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from((JUMP_IF_EQUAL, JUMP_IF_GREATER_OR_EQUAL, JUMP_IF_ANY_BIT)),
            st.integers(0, 7),
            st.integers(0, 600),
            st.integers(0, 600),
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 7),
)
def test_jumps_of_any_distance_lead_where_they_should(comparisons: list[tuple[int, int, int, int]], value: int) -> None:
    """Each comparison goes to either of two returns, of 0 to 600, or to the next comparison; behind are 601 returns."""
    program = BpfProgram()
    program.load_word(0)
    for code, operand, then, otherwise in comparisons:
        program.jump_if(code, operand, f"return {then}" if then else None, f"return {otherwise}" if otherwise else None)
    program.jump("return 600")
    for number in range(601):
        program.place_label(f"return {number}")
        program.return_value(number)
    expected = 600
    for code, operand, then, otherwise in comparisons:
        holds = {
            JUMP_IF_EQUAL: value == operand,
            JUMP_IF_GREATER_OR_EQUAL: value >= operand,
            JUMP_IF_ANY_BIT: bool(value & operand),
        }[code]
        if target := then if holds else otherwise:
            expected = target
            break
    assert run_program(program.assemble(), struct.pack("=I", value)) == expected


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.one_of(st.integers(0, 40), WORDS.map(lambda n: n // 2)), st.sampled_from("abc")), st.data())
def test_a_switch_finds_every_value_and_no_other(cases: dict[int, str], data: st.DataObject) -> None:
    program = BpfProgram()
    program.load_word(0)
    write_switch(program, cases, "otherwise")
    verdicts = {"a": 1, "b": 2, "c": 3, "otherwise": 4}
    for label, verdict in verdicts.items():
        program.place_label(label)
        program.return_value(verdict)
    code = program.assemble()
    near = [value + step for value in cases for step in (-1, 0, 1) if value + step >= 0]
    for value in (*near, data.draw(WORDS)):
        assert run_program(code, struct.pack("=I", value)) == verdicts[cases.get(value, "otherwise")]


def test_a_switch_of_many_values_costs_few_steps() -> None:
    program = BpfProgram()
    program.load_word(0)
    write_switch(program, {3 * number: "hit" for number in range(400)}, "miss")
    for label in ("hit", "miss"):
        program.place_label(label)
        program.return_value(label == "hit")
    instructions = split_instructions(program.assemble())
    position, steps = 1, 0
    while instructions[position][0] != 0x06:
        code, then, otherwise, operand = instructions[position]
        position += 1 + (operand if code == 0x05 else then if operand <= 600 else otherwise)
        steps += 1
    assert steps < 25


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("missing", "the label nowhere is not placed"),
        ("back", "the jump to here goes back or behind the end"),
        ("end", "a program ends with a return"),
        ("twice", "the label here is placed twice"),
        ("long", f"{MAX_INSTRUCTIONS + 1} instructions are more than {MAX_INSTRUCTIONS}"),
    ],
)
def test_programs_that_the_kernel_would_refuse(fault: str, sentence: str) -> None:
    program = BpfProgram()
    program.place_label("here")
    program.load_word(0)
    with pytest.raises(ValueError, match=sentence):
        if fault == "twice":
            program.place_label("here")
        if fault in ("missing", "back"):
            program.jump("nowhere" if fault == "missing" else "here")
        if fault == "long":
            for _ in range(MAX_INSTRUCTIONS - 1):
                program.load_word(0)
        if fault != "end":
            program.return_value(0)
        program.assemble()
