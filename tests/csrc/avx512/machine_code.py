"""What a compiled library consists of, read from its disassembly."""

import re
import shutil
import subprocess
from dataclasses import dataclass, field

_FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")


@dataclass(frozen=True)
class Instruction:
    """One instruction in AT&T's order: the destination comes last."""

    place: int
    name: str
    operands: str

    @property
    def target(self) -> int | None:
        """Where a jump goes, if this is one to a fixed place."""
        jump = self.name.startswith("j") and re.match(r"([0-9a-f]+) <", self.operands)
        return int(jump.group(1), 16) if jump else None

    @property
    def stores_vector(self) -> bool:
        """Whether it moves a vector register to memory."""
        return self.name.startswith("vmov") and self.operands.endswith(")") and self.operands.startswith("%zmm")

    @property
    def reads_stack(self) -> bool:
        """Whether an operand lies in the frame of the function."""
        return "(%rsp" in self.operands


@dataclass
class Function:
    """The instructions of one function, in their order."""

    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def inner_loops(self) -> list[list[Instruction]]:
        """The loops that have no loop in them."""
        places = {instruction.place for instruction in self.instructions}
        jumps = [(x.target, x.place) for x in self.instructions if x.target in places and x.target <= x.place]
        inner = [
            (first, last)
            for first, last in jumps
            if not any(first <= begin and end <= last for begin, end in jumps if (begin, end) != (first, last))
        ]
        return [[x for x in self.instructions if first <= x.place <= last] for first, last in inner]


def functions(path: str) -> list[Function] | None:
    """The functions of a library; None where there is no objdump."""
    if shutil.which("objdump") is None:
        return None
    command = ["objdump", "-d", "--no-show-raw-insn", path]
    found: list[Function] = []
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        if heading := _FUNCTION.match(line):
            found.append(Function(heading.group(1)))
        elif found and (parts := _INSTRUCTION.match(line)):
            found[-1].instructions.append(Instruction(int(parts.group(1), 16), parts.group(2), parts.group(3)))
    return found
